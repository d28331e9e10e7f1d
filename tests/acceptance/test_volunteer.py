"""What a volunteer types: join, look, pause, pull, ask the doctor."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import proxying
from stage import EMBEDDED, Program, Stage, free_port, get_json, nodes_at, terminal, until
from tokenplace.node.demand import Demand, ask_demand
from unit.node.test_weights import DATA, Hub, cut_after, says

FILE = "hf:owner/repo-GGUF/m.gguf"


def page_of(node: Program) -> str:
    """Where its status page is."""
    found: re.Match[str] = until(
        lambda: re.search(r"status page: (http://\S+)", node.text), "the status page's address"
    )
    return found[1]


def command(
    stage: Stage, node: str, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command beside a node: with the same state directory."""
    state = {"XDG_STATE_HOME": str(stage.folder / node), "XDG_CONFIG_HOME": str(stage.folder / node)}
    return subprocess.run(
        [sys.executable, "-m", "tokenplace.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **state, **(env or {})},
    )


def test_status_pause_and_resume_reach_the_node_of_this_machine(stage: Stage) -> None:
    relay = stage.relay("--blind")
    node = stage.node(relay)
    url = page_of(node)
    assert get_json(f"{url}/health") == {
        "status": "ok",
        "version": get_json(f"{url}/health")["version"],
        "mock_mode": True,
    }
    until(lambda: get_json(f"{url}/status.json")["standing"] == "serving", "the node to serve")

    assert command(stage, "node", "node", "pause").stdout == "The node is paused.\n"
    until(lambda: nodes_at(relay)[0]["models"] == [], "the relay to hear it")
    told = json.loads(command(stage, "node", "node", "status", "--json").stdout)
    assert (told["standing"], told["why"][0]["code"], told["slots"]) == ("paused", "paused", 0)
    refused = command(stage, "client", "chat", "--relay", relay.url, "-m", "x", "--model", "echo")
    assert refused.returncode == 1  # at once, not after a minute in a queue

    assert command(stage, "node", "node", "resume").returncode == 0
    until(lambda: nodes_at(relay)[0]["models"] == ["echo"], "the relay to hear it")
    assert command(stage, "client", "chat", "--relay", relay.url, "-m", "hi there").stdout == "echo: hi there\n"
    shown = until(lambda: (s := get_json(f"{url}/status.json")) and s["done"] and s, "the answer to be counted")
    assert (shown["done"], shown["tokens"] > 0, shown["running"]) == (1, True, 0)
    assert "1 done" in command(stage, "node", "node", "status").stdout
    with urllib.request.urlopen(f"{url}/") as page:
        assert "hi there" not in page.read().decode()
    assert node.end() == 0
    gone = command(stage, "node", "node", "status")
    assert (gone.returncode, "Traceback" in gone.stderr) == (1, False)


def test_the_port_of_the_contract_gives_way_when_it_is_taken_and_zero_is_none(stage: Stage) -> None:
    relay = stage.relay("--blind")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        moved = stage.node(relay, flags=["--status-port", str(port)], name="moved")
        assert int(page_of(moved).rpartition(":")[2]) > port
        assert "status.moved" in moved.text
    without = stage.node(relay, env={"TOKEN_PLACE_STATUS_PORT": "0"}, name="without")
    until(lambda: "serves echo" in without.text, "its line")
    assert "status page" not in without.text


def test_a_terminal_shows_the_node_at_work_and_ctrl_c_ends_it(stage: Stage, tmp_path: Path) -> None:
    relay = stage.relay("--blind")
    dead = f"http://127.0.0.1:{free_port()}"
    arguments = ["node", "--engine", "echo", "--relay", relay.url, "--relay", dead, "--status-port", "0"]
    with terminal(arguments, tmp_path) as node:
        for seen in ("fingerprint", "connected", "Why no work comes", "cannot be reached", "tokens/s now"):
            node.wait_for(seen)
        assert command(stage, "client", "chat", "--relay", relay.url, "-m", "hi").stdout == "echo: hi\n"
        node.wait_for("1 done")
        node.type("\x03")
        assert node.ended() == 0


def test_json_is_a_line_each_second_that_scripts_can_read(stage: Stage) -> None:
    relay = stage.relay("--blind")
    node = stage.start("node", ["node", "--engine", "echo", "--relay", relay.url, "--json"])

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in node.text.splitlines()[:-1]]

    until(lambda: len([line for line in lines() if line["message"] == "status"]) >= 3, "three lines")
    until(lambda: lines()[-1].get("standing") == "serving", "the node to serve")
    assert node.end() == 0
    node.finish()
    assert json.loads(node.text.splitlines()[-1])["standing"] == "stopping"


def test_a_node_finds_its_relays_in_the_lists_of_the_environment(stage: Stage) -> None:
    one, two = stage.relay("--blind", name="one"), stage.relay("--blind", name="two")
    env = {"TOKEN_PLACE_RELAY_UPSTREAMS": json.dumps([one.url]), "TOKEN_PLACE_RELAY_CLOUDFLARE_URL": two.url + "/"}
    stage.start("node", ["node", "--engine", "echo"], env)
    for relay in (one, two):
        until(lambda relay=relay: nodes_at(relay), "the node to come")  # type: ignore[misc]
    me = nodes_at(one)[0]["node"]
    seen = asyncio.run(ask_demand(one.url, me, {"echo"}))
    assert seen == Demand(listed=True, set_aside=False, elsewhere=(), rivals=0)
    alone = stage.start("alone", ["node", "--engine", "echo"], {**env, "TOKEN_PLACE_RELAY_CLUSTER_ONLY": "1"})
    assert alone.process.wait(20) == 1
    alone.finish()
    assert "TOKEN_PLACE_RELAY_CLUSTER_ONLY" in alone.text
    assert "Traceback" not in alone.text


def test_the_link_goes_through_the_proxy_that_this_machine_is_set_up_for(stage: Stage) -> None:
    relay = stage.relay("--blind")
    with proxying() as proxy:
        env = {"https_proxy": proxy.url, "http_proxy": proxy.url, "no_proxy": ""}
        node = stage.node(relay, env=env)
        assert f"CONNECT {relay.url.removeprefix('http://')}" in proxy.asked
        assert node.end() == 0
    broken = stage.start("broken", ["node", "--engine", "echo", "--relay", relay.url], {"http_proxy": "nonsense://x"})
    until(lambda: "proxy of this machine cannot be used" in broken.text, "the reason")
    assert broken.process.poll() is None


# -- models --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def at_the_hub(tmp_path: Path, hub: Hub) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "TOKEN_PLACE_MODELS_DIR": str(tmp_path / "models"),
    }


def test_a_pull_that_is_cut_twice_is_finished_checked_listed_and_removed(
    stage: Stage, tmp_path: Path, hub: Hub
) -> None:
    env = at_the_hub(tmp_path, hub)
    announce = says(302, Location=f"{hub.url}/blob", X_Linked_Etag=f'"{hashlib.sha256(DATA).hexdigest()}"')
    hub.script = [announce, cut_after(1_000_000), announce, cut_after(1_000_000), announce]
    pulled = command(stage, "me", "models", "pull", FILE, env=env)
    assert pulled.returncode == 0, pulled.stderr
    assert [span for span, path in zip(hub.ranges, hub.paths, strict=True) if path == "/blob"] == [
        None,
        "bytes=1000000-",
        "bytes=2000000-",
    ]
    asked = len(hub.paths)
    assert "is whole" in command(stage, "me", "models", "verify", FILE, env=env).stdout
    listed = json.loads(command(stage, "me", "models", "list", "--json", env=env).stdout)
    assert {"id": FILE, "bytes": len(DATA), "state": "here"} in listed["models"]
    assert command(stage, "me", "models", "pull", FILE, env=env).returncode == 0
    assert len(hub.paths) == asked, "what is here is not fetched again"
    assert "is gone" in command(stage, "me", "models", "rm", FILE, env=env).stdout
    assert command(stage, "me", "models", "rm", FILE, env=env).returncode == 1


def test_ctrl_c_keeps_what_has_come(stage: Stage, tmp_path: Path, hub: Hub) -> None:
    def slow(hub: Hub, handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("ETag", '"v1"')
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:1_500_000])
        handler.connection.settimeout(30)
        handler.rfile.read(1)  # until the other end is gone
        handler.close_connection = True

    env = at_the_hub(tmp_path, hub)
    hub.script = [slow]
    digest = hashlib.sha256(DATA).hexdigest()
    pull = stage.start("pull", ["models", "pull", FILE, "--sha256", digest], env)
    part = tmp_path / "models" / "owner--repo-GGUF--m.gguf.part"
    until(lambda: part.stat().st_size == 1_500_000, "the first half")
    pull.kill(signal.SIGINT)
    assert pull.process.wait(20) == 130
    pull.finish()
    assert "pull again to go on" in pull.text
    assert "Traceback" not in pull.text
    assert command(stage, "me", "models", "pull", FILE, "--sha256", digest, env=env).returncode == 0
    assert hub.ranges == [None, "bytes=1500000-"]


# -- doctor and bench ----------------------------------------------------------------------------------------------


def test_the_doctor_finds_all_well_where_all_is_well(stage: Stage) -> None:
    relay = stage.relay("--blind")
    looked = command(stage, "me", "doctor", "--engine", "echo", "--relay", relay.url, "--json")
    told = json.loads(looked.stdout)
    assert (looked.returncode, told["ok"]) == (0, True), told
    names = [each["name"] for each in told["findings"]]
    assert names[-5:] == ["name", "reach", "clock", "link", "answer"]


@pytest.mark.parametrize(
    ("arguments", "env", "finding", "todo"),
    [
        (["--engine", "echo"], {"TOKEN_PLACE_RELAY_CLUSTER_ONLY": "1"}, "relays", "--relay"),
        (["--model", "nobody-made-this"], {}, "model", "models list"),
        (["--engine", "http://127.0.0.1:{port}"], {}, "answer", "model server running"),
    ],
)
def test_the_doctor_says_what_to_do(
    stage: Stage, arguments: list[str], env: dict[str, str], finding: str, todo: str
) -> None:
    filled = [word.replace("{port}", str(free_port())) for word in arguments]
    relay = [] if finding == "relays" else ["--relay", f"http://127.0.0.1:{free_port()}"]
    looked = command(stage, "me", "doctor", *filled, *relay, "--json", env=env)
    told = json.loads(looked.stdout)
    assert (looked.returncode, told["ok"]) == (1, False)
    [found] = [each for each in told["findings"] if each["name"] == finding]
    assert found["verdict"] == "bad"
    assert todo in found["todo"]


def test_a_damaged_model_is_found_and_never_loaded(stage: Stage, tmp_path: Path) -> None:
    """The embedded model's size, but other bytes."""
    models = tmp_path / "models"
    models.mkdir()
    with (models / "SmolLM2-135M-Instruct.Q4_1.gguf").open("wb") as file:
        file.truncate(98_362_432)
    env = {"TOKEN_PLACE_MODELS_DIR": str(models)}
    looked = command(stage, "me", "doctor", "--relay", f"http://127.0.0.1:{free_port()}", "--json", env=env)
    verdicts = {each["name"]: each for each in json.loads(looked.stdout)["findings"]}
    for name in ("model", "answer"):
        assert verdicts[name]["verdict"] == "bad"
        assert f"tokenplace models pull {EMBEDDED}" in verdicts[name]["todo"]


@pytest.mark.heavy
@pytest.mark.model
def test_the_bench_measures_and_draws_the_roofline(stage: Stage) -> None:
    ran = command(stage, "me", "bench", "--tokens", "8", "--streams", "2", "--json")
    told = json.loads(ran.stdout)
    assert told["model"] == EMBEDDED
    for figure in ("prompt_speed", "decode_speed", "streams_speed", "bandwidth", "roofline"):
        assert told[figure] > 0, figure
    assert told["roofline"] == pytest.approx(told["bandwidth"] / told["model_bytes"], rel=0.01)

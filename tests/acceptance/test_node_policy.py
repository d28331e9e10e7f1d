"""A node that gives the machine back: hours, signals, an end that does not wait, and nothing kept of what was said."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from stage import EMBEDDED, Program, Stage, free_port, get_json, nodes_at, until
from tokenplace.client.client import Client
from tokenplace.errors import NoNode
from tokenplace.node.settings import NodeSettings
from unit.node.engines.test_local_engines import OLLAMA, answering

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither signal")
ASKED = [{"role": "user", "content": "one two three four five six seven eight nine ten"}]
PAUSED: tuple[int, list[str]] = (0, [])
SERVING = (64, ["echo"])


def shown(relay: Program) -> tuple[int, list[str]]:
    [node] = nodes_at(relay)
    return node["slots"], node["models"]


@posix
async def test_a_signal_pauses_and_another_resumes_and_running_answers_end(stage: Stage) -> None:
    relay = stage.relay("--blind")
    node = stage.node(relay, delay=0.1)
    async with Client([relay.url]) as client:
        stream = client.stream(ASKED, model="echo")
        first = await anext(stream)
        node.kill(signal.SIGUSR1)
        await asyncio.to_thread(until, lambda: shown(relay) == PAUSED, "the relay to hear of the pause")
        said = "".join([first["choices"][0]["delta"].get("content") or ""])
        async for chunk in stream:
            said += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        assert said == f"echo: {ASKED[0]['content']}"
    async with Client([relay.url]) as newcomer:
        with pytest.raises(NoNode):
            await newcomer.chat(ASKED, model="echo")
        node.kill(signal.SIGUSR2)
        await asyncio.to_thread(until, lambda: shown(relay) == SERVING, "the relay to hear that it goes on")
        assert await newcomer.chat(ASKED, model="echo")


def test_outside_its_hours_a_node_takes_nothing_and_says_why(stage: Stage) -> None:
    relay = stage.relay("--blind")
    hour = time.localtime().tm_hour
    hours = f"{(hour + 12) % 24:02}:00-{(hour + 13) % 24:02}:00"  # the other side of the day, whatever the minute
    port = free_port()
    flags = ["--status-port", str(port)]
    stage.node(relay, env={"TOKEN_PLACE_HOURS": hours}, flags=flags)
    until(lambda: shown(relay) == PAUSED, "the node to keep to its hours")
    until(lambda: hours in str(get_json(f"http://127.0.0.1:{port}/status.json")["why"]), "the reason to be shown")


def test_hours_that_are_none_are_told_at_once(stage: Stage) -> None:
    node = stage.start("node", ["node", "--engine", "echo"], {"TOKEN_PLACE_HOURS": "at night"})
    assert node.process.wait(30) == 1
    node.finish()
    assert "22:00-07:00" in node.text


async def test_a_node_that_is_told_to_stop_ends_with_its_last_answer(stage: Stage) -> None:
    relay = stage.relay("--blind")
    node = stage.node(relay, delay=0.1)
    async with Client([relay.url]) as client:
        said, last = "", 0.0
        async for chunk in client.stream(ASKED, model="echo"):
            if not said:
                node.kill(signal.SIGTERM)
            said += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            last = time.monotonic()
        assert said.endswith("nine ten")
        assert await asyncio.to_thread(node.process.wait, 20) == 0
        print(f"ended {time.monotonic() - last:.2f} s after the last piece")


def test_a_server_that_runs_here_is_told_with_its_flag_and_auto_takes_it(stage: Stage) -> None:
    relay = stage.relay("--blind")
    with answering(OLLAMA) as port:
        prelude = (
            "import tokenplace.node.engines.local as local, functools\n"
            f"here = functools.partial(local.find_local_engines, {{{port}: 'Ollama'}})\n"
            "import tokenplace.node.build as build\nbuild.find_local_engines = here\n"
        )
        node = stage.start(
            "node", ["node", "--engine", "auto", "--relay", relay.url, "--status-port", "0"], None, prelude
        )
        until(lambda: nodes_at(relay) and shown(relay)[1] == ["llama3.2:latest"], "the node to serve what runs here")
        assert node.process.poll() is None


@pytest.mark.model
async def test_nothing_of_a_conversation_is_left_on_disk_or_in_logs(stage: Stage, tmp_path: Path) -> None:
    """Everything that the node could write to is searched for two rare words, one asked and one to be repeated."""
    relay = stage.relay("--blind")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    homes = {name: str(tmp_path / "home") for name in ("HOME", "XDG_CACHE_HOME")}
    (tmp_path / "home").mkdir()
    models = {"TOKEN_PLACE_MODELS_DIR": str(NodeSettings().weights_dir)}
    node = stage.node(
        relay, engine="llama", env={"TMPDIR": str(temporary), "TOKENPLACE_LOG_LEVEL": "DEBUG", **homes, **models}
    )
    marker = "quixotryfernwhistle"
    async with Client([relay.url]) as client:
        answer = await client.chat(
            [{"role": "user", "content": f"Repeat after me: {marker} {marker}"}], model=EMBEDDED, max_tokens=24
        )
    assert answer["usage"]["completion_tokens"]
    files = [path for folder in (tmp_path, stage.folder) for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert marker.encode() not in path.read_bytes(), path
    node.end()
    node.finish()
    assert marker not in node.text
    assert "job.ended" in node.text

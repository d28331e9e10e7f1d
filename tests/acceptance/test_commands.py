"""The commands as a person types them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stage import Stage, all_free, free_port, get_json, nodes_at, terminal, until


def test_a_conversation_in_the_terminal_survives_ctrl_c(stage: Stage, tmp_path: Path) -> None:
    relay = stage.relay()
    stage.node(relay, delay=0.05)
    with terminal(["chat", "--relay", relay.url], tmp_path) as chat:
        chat.wait_for("you ›")
        chat.type("one two three\r")
        chat.wait_for("echo: one two three")
        assert re.search(r"node ([a-z2-7]{4}-){7}[a-z2-7]{4} \(new\)", chat.seen)
        chat.wait_for("you ›")
        chat.type("word " * 400 + "\r")
        chat.wait_for("echo: word word")
        chat.type("\x03")
        chat.wait_for("stopped")
        until(lambda: all_free(relay), "the slot to be free", patience=12.0)
        chat.seen = ""
        chat.type("still there\r")
        chat.wait_for("echo: still there")
        chat.type("\x04")
        assert chat.ended() == 0


def test_one_message_prints_the_answer_and_nothing_else(stage: Stage) -> None:
    relay = stage.relay()
    stage.node(relay)
    command = [sys.executable, "-m", "tokenplace.cli.main", "chat", "--relay", relay.url]
    env = {**os.environ, "XDG_STATE_HOME": str(stage.folder)}
    said = subprocess.run([*command, "--message", "hello"], capture_output=True, text=True, timeout=30, env=env)
    assert (said.returncode, said.stdout) == (0, "echo: hello\n")
    piped = subprocess.run(command, input="from a pipe\n", capture_output=True, text=True, timeout=30, env=env)
    assert (piped.returncode, piped.stdout) == (0, "echo: from a pipe\n")


def test_without_a_relay_the_chat_says_so_in_one_line(stage: Stage) -> None:
    chat = stage.start("chat", ["chat", "--relay", f"http://127.0.0.1:{free_port()}", "--message", "x"])
    assert chat.process.wait(20) == 1
    chat.finish()
    assert "cannot be reached" in chat.text
    assert "Traceback" not in chat.text


def test_a_relay_whose_port_is_taken_says_so_and_up_takes_the_next(stage: Stage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        relay = stage.start("relay", ["relay", "--port", str(port)])
        assert relay.process.wait(20) == 1
        relay.finish()
        assert "--port" in relay.text
        assert "Traceback" not in relay.text
        up = stage.start("up", ["up", "--engine", "echo", "--port", str(port)])
        found = until(lambda: re.search(r"Ready at (http://127\.0\.0\.1:(\d+))", up.text), "the address")
        assert int(found[2]) > port
        assert "sealed here, opened only by node" in up.text
    assert up.end() == 0


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (["up", "--engine", "nonsense", "--port", "0"], {}, "An engine is llama, echo, auto or an http:// address"),
        (["node", "--engine", "echo"], {"TOKEN_PLACE_SLOTS": "99"}, "TOKEN_PLACE_SLOTS"),
        (["node", "--engine", "echo", "--relay", "ftp://x"], {}, "https://relay.example"),
        (["chat", "-m", "x"], {"TOKEN_PLACE_PINNED_NODES": "xyz"}, "TOKEN_PLACE_PINNED_NODES"),
        (["models", "verify", "nobody-made-this"], {}, "tokenplace models list"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    stage: Stage, arguments: list[str], env: dict[str, str], says: str
) -> None:
    program = stage.start("command", arguments, env)
    assert program.process.wait(20) == 1
    program.finish()
    assert says in program.text
    assert "Traceback" not in program.text
    assert program.text.count("tokenplace: ") == 1


def test_relay_port_in_the_environment_wins_and_a_bad_one_is_passed_over(stage: Stage) -> None:
    wins, flag = free_port(), free_port()
    stage.start("relay", ["relay", "--port", str(flag)], {"RELAY_PORT": str(wins)})
    until(lambda: get_json(f"http://127.0.0.1:{wins}/livez"), "the relay where the environment says")
    bad = stage.start("other", ["relay", "--port", str(flag)], {"RELAY_PORT": "many"})
    until(lambda: get_json(f"http://127.0.0.1:{flag}/livez"), "the relay where the flag says")
    assert "RELAY_PORT" in bad.text


def test_the_original_scripts_open_the_same_doors(stage: Stage) -> None:
    port = free_port()
    relay = stage.start("relay", ["--port", str(port)], script="relay.py")
    relay.url = f"http://127.0.0.1:{port}"
    until(lambda: get_json(f"{relay.url}/livez"), "relay.py")
    stage.start(
        "server", ["--relay_url", "http://localhost", "--relay_port", str(port), "--use_mock_llm"], script="server.py"
    )
    until(lambda: nodes_at(relay), "server.py")
    client = stage.start("client", ["--relay_port", str(port), "--message", "hello"], script="client.py")
    assert client.process.wait(20) == 0
    client.finish()
    assert client.text == "echo: hello\n"


def test_a_node_without_a_relay_waits_for_one_and_ends_when_told(stage: Stage) -> None:
    port = free_port()
    node = stage.start("node", ["node", "--engine", "echo", "--relay", f"http://127.0.0.1:{port}"])
    until(lambda: "cannot be reached" in node.text, "the node to say what is wrong")
    relay = stage.relay(port=port)
    until(lambda: nodes_at(relay), "the node to come")
    assert node.end() == 0


def test_the_node_s_identity_is_its_owner_s_alone_and_stays(stage: Stage) -> None:
    relay = stage.relay()
    first = stage.node(relay)
    before = nodes_at(relay)[0]["node"]
    file = stage.folder / "node" / "token.place" / "node-identity"
    assert file.stat().st_mode & 0o777 == 0o600
    first.end()
    until(lambda: not nodes_at(relay), "the node to be gone")
    stage.node(relay)
    assert nodes_at(relay)[0]["node"] == before


def test_an_invitation_decides_who_may_serve(stage: Stage) -> None:
    relay = stage.relay(env={"TOKEN_PLACE_RELAY_SERVER_TOKENS": "first-token, second-token"})
    stranger = stage.start("stranger", ["node", "--engine", "echo", "--relay", relay.url])
    until(lambda: "invitation" in stranger.text, "the stranger to be told")
    assert not nodes_at(relay)
    stage.node(relay, env={"TOKEN_PLACE_RELAY_SERVER_TOKEN": "second-token"}, name="guest")
    assert len(nodes_at(relay)) == 1
    assert "second-token" not in relay.text


@pytest.mark.model
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_ends_at_once_when_it_is_told_so_before_it_is_warm(stage: Stage, number: signal.Signals) -> None:
    up = stage.start("up", ["up", "--port", str(free_port())])
    until(lambda: "Starting the model" in up.text, "the start")
    up.kill(number)
    assert up.process.wait(8) == 0
    up.finish()
    assert "Traceback" not in up.text
    assert not up.text.count("Ready")


@pytest.mark.model
def test_up_shows_a_first_sealed_answer_and_leaves_nothing_behind(stage: Stage) -> None:
    up = stage.start("up", ["up", "--port", str(free_port())])
    until(lambda: "Ready at http://127.0.0.1:" in up.text, "the first answer", patience=60)
    children = up.children()
    assert children, "the model runs in a process of its own"
    up.kill(signal.SIGINT)
    assert up.process.wait(15) == 0
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the model's process to be gone")

"""The tutorial, typed as it stands: only ports and the model are exchanged, for free ones and the parrot."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from docs.pages import ROOT, blocks
from stage import Program, Stage, free_port, get_json, nodes_at, until

TUTORIAL = "docs/tutorial.md"
PARROT = {"TOKEN_PLACE_ENGINE": "echo", "TOKEN_PLACE_STATUS_PORT": "0"}
LINES = [line for block in blocks(TUTORIAL, "sh") for line in block.splitlines()]
DONE_BY_HAND = {"make run", ". .venv/bin/activate", "pip install openai", "python ask.py", "kill -9 %1"}
"""Each has its own place below; the package is one of the tests' own."""


def test_every_command_is_run_here() -> None:
    here = Path(__file__).read_text()
    for line in LINES:
        assert line in DONE_BY_HAND or f'"{line[:40]}' in here, line


def ported(line: str, ports: dict[str, int]) -> str:
    return re.sub(r"\b(5000|5001|5002|8000)\b", lambda found: str(ports[found[0]]), line)


def typed(stage: Stage, name: str, line: str, ports: dict[str, int], env: dict[str, str] | None = None) -> Program:
    """One line of the tutorial in a terminal of its own."""
    [found] = [each for each in LINES if each.startswith(line)]
    assignments, _, rest = ported(found, ports).partition("tokenplace ")
    own = dict(word.replace("$HOME", str(stage.folder)).split("=", 1) for word in shlex.split(assignments))
    return stage.start(name, shlex.split(rest), {**PARROT, **own, **(env or {})})


def said(line: str, ports: dict[str, int]) -> str:
    [found] = [each for each in LINES if each.startswith(line)]
    command = shlex.split(ported(found, ports))
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_what_make_run_starts_is_what_the_tutorial_chats_with(stage: Stage, tmp_path: Path) -> None:
    command = ["make", "--no-print-directory", "--dry-run", "--old-file=.venv/.ready", "run"]
    dry = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    *_, pulls, starts = [line for line in dry.stdout.splitlines() if "tokenplace " in line]
    assert "models pull smollm2-135m-instruct" in pulls
    assert starts.split()[-1] == "up"
    ports = {"5000": free_port(), "8000": free_port()}
    everything = stage.start("up", ["up", "--port", str(ports["5000"])], PARROT)
    stage.up(everything, lambda: "Ready at" in everything.text)

    chat = typed(stage, "chat", "tokenplace chat --relay http://127.0.0.1:5000 -m", ports)
    assert chat.process.wait(60) == 0
    chat.finish()
    assert chat.text == "echo: Why is the sky blue?\n"

    gateway = typed(stage, "gateway", "tokenplace gateway --relay http://127.0.0.1:5000 --port 8000", ports)
    gateway.url = f"http://127.0.0.1:{ports['8000']}"
    stage.up(gateway, lambda: get_json(f"{gateway.url}/v1/health"))
    [program] = blocks(TUTORIAL, "python")
    (tmp_path / "ask.py").write_text(ported(program, ports))
    ran = subprocess.run(
        [sys.executable, "ask.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.stdout, ran.returncode) == ("echo: Hello\n", 0), ran.stderr
    assert "x-token-place-privacy: end-to-end" in said("curl -si http://127.0.0.1:8000/v1/models", ports)


def test_a_stream_survives_the_death_of_the_first_of_two_relays(stage: Stage) -> None:
    ports = {"5001": free_port(), "5002": free_port()}
    first = typed(stage, "first", "tokenplace relay --blind --port 5001", ports)
    second = typed(stage, "second", "tokenplace relay --blind --port 5002", ports)
    for relay, port in ((first, "5001"), (second, "5002")):
        relay.url = f"http://127.0.0.1:{ports[port]}"
        stage.up(relay, lambda url=relay.url: get_json(f"{url}/livez"))  # type: ignore[misc]
    slowly = {"TOKEN_PLACE_ECHO_DELAY": "0.3"}
    both = "tokenplace node --relay http://127.0.0.1:5001 --relay http://127.0.0.1:5002"
    volunteer = typed(stage, "volunteer", both, ports, slowly)
    stage.up(volunteer, lambda: len(nodes_at(second)) == 1)
    other = typed(stage, "other", "TOKEN_PLACE_STATE_DIR=$HOME/.second-node tokenplace", ports, slowly)
    stage.up(other, lambda: len(nodes_at(first)) == len(nodes_at(second)) == 2)
    health = json.loads(said("curl -s http://127.0.0.1:5001/healthz", ports))
    shown = json.loads(next(block for block in blocks(TUTORIAL, "text") if block.startswith("{")))
    assert health.keys() == shown.keys()
    assert health["knownServers"] == shown["knownServers"]

    line = "tokenplace chat --relay http://127.0.0.1:5001 --relay http://127.0.0.1:5002 -m"
    chat = typed(stage, "chat", line, ports)
    until(lambda: "echo: Write" in chat.text or chat.process.poll() is not None, "the story to begin")
    assert not chat.text.endswith("lighthouse.\n"), "it was over before the relay could die"
    first.kill()
    assert chat.process.wait(60) == 0, chat.text
    chat.finish()
    assert chat.text == "echo: Write a long story about a lighthouse.\n"
    assert (stage.folder / ".second-node" / "node-identity").is_file()

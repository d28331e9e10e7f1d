"""The volunteer's guide, typed as it stands: only ports and the model are exchanged, for free ones and the parrot."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

from docs.pages import blocks
from stage import Program, Stage, get_json, until

GUIDE, STATUS = "docs/how-to/volunteer.md", "docs/how-to/node-status.md"
PARROT = {"TOKEN_PLACE_ENGINE": "echo", "TOKEN_PLACE_STATUS_PORT": "0"}


def lines_of(page: str, begins: str) -> list[str]:
    """The guide's commands that begin so."""
    found = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in found if line.startswith(begins)]


def typed(stage: Stage, line: str, relay: Program | None = None) -> subprocess.CompletedProcess[str]:
    address = relay.url if relay else ""
    words = shlex.split(line.replace("https://relay.example", address))[1:]
    state = {"XDG_STATE_HOME": str(stage.folder / "node"), "XDG_CONFIG_HOME": str(stage.folder / "node")}
    return subprocess.run(
        [sys.executable, "-m", "tokenplace.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **PARROT, **state},
    )


def test_from_the_first_line_to_serving(stage: Stage) -> None:
    relay = stage.relay("--blind")
    doctor = lines_of(GUIDE, "tokenplace doctor")
    assert len(doctor) == 2
    for line in doctor:
        looked = typed(stage, line, relay)
        assert looked.returncode == 0, looked.stdout
        assert "This machine can serve." in looked.stdout
    join = lines_of(GUIDE, "tokenplace node --relay https://relay.example")[0]
    words = shlex.split(join.replace("https://relay.example", relay.url))[1:]
    node = stage.start("node", words, {**PARROT, "TOKEN_PLACE_STATUS_PORT": "3000"})
    until(lambda: "status page: " in node.text, "the node to serve")
    url = node.text.partition("status page: ")[2].split()[0]
    until(lambda: get_json(f"{url}/status.json")["standing"] == "serving", "the relay to take it")

    beside = lines_of(STATUS, "tokenplace node")
    assert [line.split()[2] for line in beside] == ["status", "pause", "resume"]
    said = [typed(stage, line) for line in beside]
    assert all(each.returncode == 0 for each in said)
    assert "serving" in said[0].stdout
    assert (said[1].stdout, said[2].stdout) == ("The node is paused.\n", "The node is serving.\n")


def test_the_page_of_the_status_names_every_reason_and_every_path(stage: Stage) -> None:
    from pathlib import Path

    from docs.pages import first_cells
    from tokenplace.node import standing

    rows = set(first_cells(STATUS))
    source = Path(standing.__file__).read_text()
    codes = {part.partition('"')[0] for part in source.split('Why("')[1:]}
    assert codes
    assert codes <= rows
    relay = stage.relay("--blind")
    node = stage.node(relay)
    until(lambda: "status page: " in node.text, "the page's address")
    url = node.text.partition("status page: ")[2].split()[0]
    for path in [row.removeprefix("GET ") for row in rows if row.startswith("GET /") and row != "GET /"]:
        if path != "/metrics":
            assert isinstance(get_json(url + path), dict), json.dumps(path)

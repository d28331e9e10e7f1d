"""The page for programs of the original: its examples run as they stand, but for the port and the model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from docs.pages import blocks
from stage import Program, get_json, staged, until

PAGE = "docs/how-to/classic-programs.md"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A relay with a gateway, and a node."""
    with staged(tmp_path_factory.mktemp("classic")) as stage:
        relay = stage.relay()
        stage.node(relay)
        until(lambda: "server_public_key" in get_json(f"{relay.url}/next_server"), "the node's key")
        yield relay


@pytest.mark.parametrize("number", range(len(blocks(PAGE, "python"))))
def test_an_example_prints_an_answer(relay: Program, number: int) -> None:
    code = blocks(PAGE, "python")[number]
    code = code.replace("http://127.0.0.1:5000", relay.url).replace("smollm2-135m-instruct", "echo")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "echo: Hello"), ran.stderr


def test_there_are_examples() -> None:
    assert len(blocks(PAGE, "python")) == 4

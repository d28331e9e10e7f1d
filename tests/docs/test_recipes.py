"""The recipes, run as they stand: only ports and the model are exchanged, for free ones and the parrot."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from docs.pages import blocks
from stage import Program, Stage, free_port, get_json, nodes_at, staged, until

README, OPENAI = "README.md", "docs/how-to/openai-programs.md"
CLASSIC = "docs/how-to/encrypted-requests.md"
PARROT = {"TOKEN_PLACE_ENGINE": "echo"}


def recipe(page: str, begins: str) -> str:
    """The line of a page's shell blocks that begins so."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    found = [line for line in lines if line.startswith(begins)]
    assert found, f"{page} has no recipe {begins!r}"
    return found[0]


@dataclass
class Path:
    """A relay, a node and a gateway, started as the README says."""

    stage: Stage
    relay: Program
    gateway: Program

    def ported(self, text: str) -> str:
        """The same with our ports and the parrot for a model."""
        ours = {"5000": self.relay.url.rpartition(":")[2], "8000": self.gateway.url.rpartition(":")[2]}
        text = re.sub(r"\b(5000|8000)\b", lambda port: ours[port[0]], text)
        return text.replace("https://relay.example", self.relay.url).replace("smollm2-135m-instruct", "echo")

    def start(self, name: str, line: str, env: dict[str, str] | None = None) -> Program:
        """Run a recipe."""
        program, *arguments = shlex.split(self.ported(line))
        assert program == "tokenplace"
        return self.stage.start(name, arguments, env)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with staged(tmp_path_factory.mktemp("recipes")) as stage:
        relay_port, gateway_port = free_port(), free_port()
        line = shlex.split(recipe(README, "tokenplace relay").replace("5000", str(relay_port)))
        relay = stage.start("relay", line[1:])
        relay.url = f"http://127.0.0.1:{relay_port}"
        made = Path(stage, relay, relay)
        node = made.start("node", recipe(README, "tokenplace node"), PARROT)
        line = shlex.split(recipe(README, "tokenplace gateway"))
        line = [str(gateway_port) if word == "8000" else made.ported(word) for word in line]
        made.gateway = stage.start("gateway", line[1:])
        made.gateway.url = f"http://127.0.0.1:{gateway_port}"
        until(lambda: nodes_at(relay), f"the node to join; it says {node.text}")
        until(lambda: get_json(f"{made.gateway.url}/v1/health"), "the gateway")
        yield made


def test_the_chat_recipe_prints_an_answer(path: Path) -> None:
    line = recipe(README, "tokenplace chat --relay http://127.0.0.1:5000 -m")
    chat = path.start("chat", line)
    assert chat.process.wait(20) == 0
    chat.finish()
    assert chat.text == "echo: Why is the sky blue?\n"


@pytest.mark.parametrize(
    ("page", "number"),
    [(page, number) for page in (README, OPENAI, CLASSIC) for number in range(len(blocks(page, "python")))],
)
def test_python_examples_print_an_answer(path: Path, page: str, number: int) -> None:
    code = path.ported(blocks(page, "python")[number])
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "echo: Hello"), ran.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_curl_example_streams(path: Path) -> None:
    [block] = [block for block in blocks(OPENAI, "sh") if block.startswith("curl")]
    command = shlex.split(path.ported(block).replace("\\\n", " "))
    ran = subprocess.run([*command, "-sS"], capture_output=True, text=True, timeout=30, check=True)
    assert "data: [DONE]" in ran.stdout


def test_a_blind_relay_says_what_the_page_of_errors_says(path: Path) -> None:
    import httpx2

    answer = httpx2.post(f"{path.relay.url}/v1/chat/completions", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "blind_relay")


def test_among_friends_invitations_and_pins_both_hold(stage: Stage) -> None:
    relay = stage.relay("--blind", env={"TOKEN_PLACE_RELAY_SERVER_TOKENS": "one-string,another-string"})
    friend = stage.node(relay, env={"TOKEN_PLACE_RELAY_SERVER_TOKEN": "another-string"}, name="friend")
    stranger = stage.start("stranger", ["node", "--relay", relay.url, "--engine", "echo"])
    until(lambda: "TOKEN_PLACE_RELAY_SERVER_TOKEN" in stranger.text, "the stranger to be told why")
    assert len(nodes_at(relay)) == 1

    pins = [
        re.findall(r"node ((?:[a-z2-7]{4}-){7}[a-z2-7]{4}) serves", program.text)[0] for program in (friend, stranger)
    ]
    ask = ["chat", "--relay", relay.url, "-m", "Hello"]
    good = stage.start("good", ask, {"TOKEN_PLACE_PINNED_NODES": pins[0]})
    bad = stage.start("bad", ask, {"TOKEN_PLACE_PINNED_NODES": pins[1]})
    assert (good.process.wait(20), bad.process.wait(20)) == (0, 1)
    good.finish()
    assert good.text == "echo: Hello\n"

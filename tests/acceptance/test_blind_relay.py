"""The relay knows neither keys nor words: a whole chat passes a process that could not open it."""

from __future__ import annotations

import re
from pathlib import Path

from stage import Program, Stage
from tokenplace.client.client import Client

BLINDFOLD = """
import sys
class Blindfold:
    def find_spec(self, name, path=None, target=None):
        hidden_rooms = ("sealing", "openai", "client", "node")
        for hidden in ("cryptography", *("tokenplace." + room for room in hidden_rooms)):
            if name == hidden or name.startswith(hidden + "."):
                raise ImportError("blindfolded: " + name)
sys.meta_path.insert(0, Blindfold())
"""

QUESTION = "zebra marmalade quixotic nineteen"


def find_in_memory(program: Program, needle: bytes) -> bool:
    """Search every readable page of a process."""
    maps = Path(f"/proc/{program.pid}/maps").read_text()
    with Path(f"/proc/{program.pid}/mem").open("rb", buffering=0) as memory:
        for start, end in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) r", maps, re.MULTILINE):
            try:
                memory.seek(int(start, 16))
                if needle in memory.read(int(end, 16) - int(start, 16)):
                    return True
            except (OSError, ValueError, OverflowError):
                continue
    return False


async def test_a_whole_chat_passes_a_relay_that_cannot_import_any_sealing(stage: Stage) -> None:
    relay = stage.relay("--blind", prelude=BLINDFOLD)
    node = stage.node(relay)
    async with Client([relay.url]) as client:
        text = ""
        async for chunk in client.stream([{"role": "user", "content": QUESTION}], model="echo"):
            text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        assert text == f"echo: {QUESTION}"
        whole = await client.chat([{"role": "user", "content": QUESTION}], model="echo")
        assert whole["choices"][0]["message"]["content"] == f"echo: {QUESTION}"

    assert find_in_memory(node, b"zebra marmalade"), "the search itself must work"
    assert not find_in_memory(relay, b"zebra marmalade")
    assert "zebra" not in relay.text
    assert "zebra" not in node.text


def test_the_blindfold_blinds(stage: Stage) -> None:
    program = stage.start("blind", ["relay"], prelude=BLINDFOLD + "\nimport tokenplace.sealing")
    assert program.process.wait(20) != 0
    assert "blindfolded" in program.text


async def test_a_blind_relay_sends_plain_programs_to_a_gateway(stage: Stage) -> None:
    import httpx2

    relay = stage.relay("--blind")
    async with httpx2.AsyncClient(base_url=relay.url) as http:
        answer = await http.post("/v1/chat/completions", json={"model": "echo", "messages": []})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "blind_relay"
        assert "tokenplace gateway" in answer.json()["error"]["message"]

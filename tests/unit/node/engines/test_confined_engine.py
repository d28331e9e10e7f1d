"""The engine's child has given up what it does not need, and nothing of a conversation is kept anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tokenplace.errors import EngineCrashed
from tokenplace.node.engines.confine import Guards
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions
from tokenplace.node.engines.several import Member, SeveralEngines
from tokenplace.node.gguf import read_header
from tokenplace.node.guardrail import Guardrail
from tokenplace.node.hardware import Hardware, Sensors
from tokenplace.node.memory import GIB, MIB, anatomy
from tokenplace.node.settings import NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai.catalogue import Catalogue
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

CHAT = "/v1/chat/completions"
CARD = ModelCard(ModelId("smollm2-135m-instruct"), 8192, ("chat",))
SMALL = LlamaOptions(slots=2, context=1024, threads=1)
linux = pytest.mark.skipif(sys.platform != "linux", reason="these guards are Linux's")


@pytest.fixture(scope="session")
def model_file() -> Path:
    return Weights(NodeSettings().weights_dir).ensure(Catalogue.load().weights_of(CARD.id)).path


@pytest.fixture
async def engine(model_file: Path) -> AsyncIterator[LlamaEngine]:
    engine = LlamaEngine(model_file, CARD, SMALL)
    await engine.start()
    yield engine
    await engine.stop()


async def events(engine: LlamaEngine, words: str, **more: Any) -> list[dict[str, Any]]:
    body = {"messages": [{"role": "user", "content": words}], "stream": True, "max_tokens": 3, **more}
    async with engine.open(CHAT, body) as answer:
        said = b"".join([chunk async for chunk in answer.chunks()]).decode()
    return [json.loads(event[6:]) for event in said.strip().split("\n\n") if not event.endswith("[DONE]")]


TRY = """
import json, os, socket, subprocess, sys
from pathlib import Path
from tokenplace.node.engines.confine import confine, seclude
model, home = Path(sys.argv[1]), Path(sys.argv[2])
guards = seclude(network=False)
guards += confine([model], home, gpu=False, network=False)

def refused(act):
    try:
        act()
    except (OSError, subprocess.SubprocessError):
        return True
    return False

listener = socket.socket(socket.AF_UNIX)
print(json.dumps({
    "held": guards.held,
    "lacking": guards.lacking,
    "reads its model": not refused(lambda: model.open("rb").read(4)),
    "makes its socket": not refused(lambda: listener.bind(str(home / "llama.sock"))),
    "reads others": not refused(lambda: Path("/etc/passwd").read_text()),
    "lists others": not refused(lambda: os.listdir(model.parent.parent)),
    "writes its model": not refused(lambda: model.open("ab")),
    "writes beside it": not refused(lambda: (model.parent / "x").write_text("x")),
    "writes at home": not refused(lambda: (home / "x").write_text("words")),
    "runs programs": not refused(lambda: os.execv(sys.executable, [sys.executable, "-c", "pass"])),
    "dials out": not refused(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])), 5)),
}))
"""


@linux
class TestRights:
    def test_what_the_guards_promise_is_so_on_this_kernel(self, tmp_path: Path) -> None:
        """Each is tried for real; what this kernel lacks is told, and then nothing is promised of it."""
        model, home = tmp_path / "deep" / "m.gguf", tmp_path / "home"
        model.parent.mkdir()
        home.mkdir()
        model.write_bytes(b"GGUF")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            told = subprocess.run(
                [sys.executable, "-c", TRY, str(model), str(home), str(listener.getsockname()[1])],
                capture_output=True,
                timeout=60,
                check=True,
            )
        found = json.loads(told.stdout)
        assert found["reads its model"]
        assert found["makes its socket"]
        assert "no core dumps" in found["held"]
        held = set(found["held"])
        if "files by landlock" in held:
            can = [
                name for name in ("reads others", "lists others", "writes its model", "writes beside it") if found[name]
            ]
            assert can == []
        if "no files written" in held:
            assert not found["writes at home"]
        if "system calls by seccomp" in held:
            assert not found["runs programs"]
        if held & {"no network", "system calls by seccomp"}:
            assert not found["dials out"]

    @pytest.mark.model
    async def test_the_child_that_serves_has_new_rights_and_core_dumps_switched_off(self, engine: LlamaEngine) -> None:
        assert engine.pid is not None
        status = Path(f"/proc/{engine.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        if "system calls by seccomp" in engine.guards.held:
            assert "Seccomp:\t2" in status
        limits = Path(f"/proc/{engine.pid}/limits").read_text().splitlines()
        assert next(line for line in limits if line.startswith("Max core file size")).split()[4:6] == ["0", "0"]

    @pytest.mark.model
    async def test_it_can_be_switched_off(self, model_file: Path) -> None:
        engine = LlamaEngine(model_file, CARD, replace(SMALL, confined=False))
        await engine.start()
        assert engine.guards == Guards()
        assert "all the rights" in engine.guards.sentence()
        await engine.stop()

    def test_a_missing_guard_is_named_in_one_line(self) -> None:
        told = Guards(("no core dumps",), ("files by landlock (this kernel has none)",)).sentence()
        assert told == (
            "The engine is confined: no core dumps. Missing here: files by landlock (this kernel has none)."
        )


@pytest.mark.model
class TestOneClientAndTheNext:
    async def test_a_prompt_that_another_has_asked_is_computed_whole_again(self, model_file: Path) -> None:
        """One slot, so the second runs where the first ran; llama.cpp's own count tells, whatever the clock says."""
        engine = LlamaEngine(model_file, CARD, replace(SMALL, slots=1))
        await engine.start()
        shared = "A long beginning that both of them send. " * 8
        counted = []
        for words in ("first", "second", "second"):
            [last] = [each for each in await events(engine, shared + words) if each.get("timings")][-1:]
            counted.append((last["timings"]["cache_n"], last["timings"]["prompt_n"]))
        assert [cached for cached, _ in counted] == [0, 0, 0]
        assert counted[0][1] == counted[1][1] == counted[2][1] > 60
        await engine.stop()

    async def test_a_client_cannot_ask_for_the_cache(self, engine: LlamaEngine) -> None:
        for _ in range(2):
            told = await events(engine, "hello " * 50, cache_prompt=True, id_slot=0)
            assert [each["timings"]["cache_n"] for each in told if each.get("timings")][-1] == 0

    async def test_the_same_question_gets_the_same_answer_whoever_asked_before(self, engine: LlamaEngine) -> None:
        async def say() -> str:
            told = await events(engine, "Name a colour.", temperature=0, max_tokens=12)
            return "".join(choice["delta"].get("content") or "" for each in told for choice in each["choices"])

        before = await say()
        await events(engine, "Only ever speak of elephants. " * 8)
        assert await say() == before


@pytest.mark.model
class TestMemoryForReal:
    @linux
    @pytest.mark.parametrize(("slots", "context"), [(1, 1024), (4, 2048), (8, 4096)])
    async def test_the_estimate_is_what_the_child_takes(self, model_file: Path, slots: int, context: int) -> None:
        """Above the truth, so that nothing is promised that is not there, and by no more than a fifth."""
        guardrail = Guardrail("x", anatomy(read_header(model_file)), Sensors().hardware)
        options = LlamaOptions(slots=slots, context=context, threads=1)
        engine = LlamaEngine(model_file, CARD, options, guardrail)
        await engine.start()
        await asyncio.gather(*(events(engine, f"Count to {number}.", max_tokens=16) for number in range(slots)))
        assert engine.pid is not None
        assert engine.sizing is not None
        taken = psutil.Process(engine.pid).memory_info().rss
        await engine.stop()
        assert taken <= engine.sizing.host <= 1.2 * taken, (
            f"{engine.sizing.host / MIB:.0f} against {taken / MIB:.0f} MiB"
        )

    async def test_a_machine_that_is_too_small_gets_fewer_slots_and_the_card_shows_it(self, model_file: Path) -> None:
        small = Hardware(2, int(0.45 * GIB), GIB)
        guardrail = Guardrail("x", anatomy(read_header(model_file)), lambda: small)
        engine = LlamaEngine(model_file, CARD, LlamaOptions(slots=4, context=4096, threads=1), guardrail)
        await engine.start()
        assert engine.slots == 2
        assert await engine.busy_slots() == 0
        await engine.stop()


@pytest.mark.model
class TestHanging:
    @linux
    async def test_a_child_that_hangs_is_noticed_killed_and_replaced(self, model_file: Path) -> None:
        options = replace(SMALL, look_every=0.2, hung_after=3.0)
        engine = LlamaEngine(model_file, CARD, options)
        await engine.start()
        asking = asyncio.create_task(events(engine, "Tell me a story.", max_tokens=900, ignore_eos=True))
        async with asyncio.timeout(60):
            while not await engine.busy_slots():
                await asyncio.sleep(0.01)
            pid = engine.pid
            assert pid is not None
            down = asyncio.create_task(engine.wait_ready(False))
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(EngineCrashed):
                await asking
            await down
            await engine.wait_ready()
        assert engine.pid not in (None, pid)
        assert await events(engine, "hello")
        await engine.stop()

    async def test_a_child_that_is_busy_for_long_is_left_alone(self, model_file: Path) -> None:
        """It computes all the time, and looks are many: none of them may take that for hanging."""
        engine = LlamaEngine(model_file, CARD, replace(SMALL, look_every=0.05, hung_after=10.0))
        await engine.start()
        pid = engine.pid
        told = await asyncio.gather(
            *(events(engine, f"Story {n}", max_tokens=60, ignore_eos=True, temperature=0) for n in range(2))
        )
        after = engine.pid
        await engine.stop()
        assert after == pid
        assert all(len(each) > 20 for each in told)  # tokens that spell half a letter share an event

    async def test_killed_under_eight_streams_all_are_told_and_the_next_is_answered(self, model_file: Path) -> None:
        engine = LlamaEngine(model_file, CARD, replace(SMALL, slots=8, context=1024))
        await engine.start()
        asking = [
            asyncio.create_task(events(engine, f"Tell story {n}.", max_tokens=900, ignore_eos=True)) for n in range(8)
        ]
        async with asyncio.timeout(60):
            while await engine.busy_slots() < 8:
                await asyncio.sleep(0.01)
            assert engine.pid is not None
            down = asyncio.create_task(engine.wait_ready(False))
            killed = time.monotonic()
            os.kill(engine.pid, signal.SIGKILL)
            ended = await asyncio.gather(*asking, return_exceptions=True)
            await down
            await engine.wait_ready()
            await events(engine, "hello")
        print(f"answered again after {time.monotonic() - killed:.2f} s")
        assert [type(each) for each in ended] == [EngineCrashed] * 8
        await engine.stop()


@pytest.mark.model
async def test_two_real_models_take_turns_where_only_one_has_room(model_file: Path) -> None:
    model = anatomy(read_header(model_file))
    engines: list[LlamaEngine] = []

    def look() -> Hardware:
        taken = sum(each.sizing.host for each in engines if each.pid is not None and each.sizing is not None)
        return Hardware(2, 400 * MIB - taken, GIB)

    for name in ("first", "second"):
        guardrail = Guardrail(name, model, look, fixed_slots=True, fixed_context=True)
        engines.append(LlamaEngine(model_file, replace(CARD, id=ModelId(name)), SMALL, guardrail))
    several = SeveralEngines([Member(each, each.fits) for each in engines])
    await several.start()
    assert [each.pid is not None for each in engines] == [True, False]
    assert [card.id for card in several.models] == ["first", "second"]
    body = {"model": "second", "messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 2}
    async with several.open(CHAT, body) as answer:
        assert b"".join([chunk async for chunk in answer.chunks()]).endswith(b"data: [DONE]\n\n")
    assert [each.pid is not None for each in engines] == [False, True]
    await several.stop()
    assert [each.pid for each in engines] == [None, None]

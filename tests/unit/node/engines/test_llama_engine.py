"""The embedded engine beyond what all engines do alike: crashes, restarts, bad files, orphans."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import struct
import sys
from array import array
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from tokenplace.errors import EngineCrashed, EngineError
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions, default_threads, pauses, suitable_batch
from tokenplace.node.engines.llama_child import ChildConfig
from tokenplace.node.settings import NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai.catalogue import Catalogue
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

CHAT = "/v1/chat/completions"
CARD = ModelCard(ModelId("smollm2-135m-instruct"), 8192, ("chat",), "sha256:00")
SMALL = LlamaOptions(slots=2, context=1024, threads=1)
ENDLESS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "stream": True,
    "max_tokens": 900,
    "ignore_eos": True,
}


@pytest.fixture(scope="session")
def model_file() -> Path:
    return Weights(NodeSettings().weights_dir).ensure(Catalogue.load().weights_of(CARD.id)).path


@pytest.fixture
async def engine(model_file: Path) -> AsyncIterator[LlamaEngine]:
    engine = LlamaEngine(model_file, CARD, SMALL)
    await engine.start()
    yield engine
    await engine.stop()


async def gone(pid: int, within: float = 3.0) -> None:
    """Return when the process has ended (a zombie has)."""
    async with asyncio.timeout(within):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


async def first_piece(engine: LlamaEngine, body: dict[str, Any], begun: asyncio.Event) -> bytes:
    said = b""
    async with engine.open(CHAT, body) as answer:
        async for chunk in answer.chunks():
            said += chunk
            begun.set()
    return said


class TestWithoutAModel:
    def test_one_thread_is_left_to_the_others(self) -> None:
        assert 1 <= default_threads() <= max(1, (os.cpu_count() or 1) - 1)

    def test_the_first_restart_is_at_once_and_the_pauses_stay_bounded(self) -> None:
        assert list(islice(pauses(), 8)) == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]

    @pytest.mark.parametrize(
        ("weights", "threads", "slots", "gpu", "batch"),
        [
            (98_362_432, 1, 4, False, 64),
            (98_362_432, 2, 4, False, 128),
            (98_362_432, 64, 4, False, 128),
            (4_920_739_232, 7, 4, False, 16),
            (4_920_739_232, 1, 32, False, 32),
            (4_920_739_232, 1, 4, True, 512),
        ],
    )
    def test_a_batch_takes_half_a_second_or_so(
        self, weights: int, threads: int, slots: int, gpu: bool, batch: int
    ) -> None:
        assert suitable_batch(weights, threads, slots, gpu=gpu) == batch

    def test_the_child_reads_what_the_engine_writes(self) -> None:
        config = a_config("/models/a b.gguf", adapters=("/x", "/y"))
        assert config.line().count(b"\n") == 1
        assert ChildConfig.parse(config.line()) == config

    def test_the_key_is_not_in_the_configurations_repr(self) -> None:
        assert "the key" not in repr(a_config("/m.gguf"))

    async def test_a_missing_file_is_told_with_the_way_out(self, tmp_path: Path) -> None:
        engine = LlamaEngine(tmp_path / "none.gguf", CARD, SMALL)
        with pytest.raises(EngineError, match=r"tokenplace models pull"):
            await engine.start()
        assert not engine.ready

    async def test_stopping_what_was_never_started_is_no_fault(self, tmp_path: Path) -> None:
        await LlamaEngine(tmp_path / "none.gguf", CARD, SMALL).stop()

    async def test_an_engine_that_is_not_running_refuses_as_one_that_will_be_back(self, tmp_path: Path) -> None:
        with pytest.raises(EngineCrashed):
            async with LlamaEngine(tmp_path / "none.gguf", CARD, SMALL).open(CHAT, ENDLESS):
                pass


class TestBadFiles:
    async def test_a_file_that_is_no_model_is_told_with_the_reason(self, tmp_path: Path) -> None:
        path = tmp_path / "junk.gguf"
        path.write_bytes(b"this is not a model at all")
        with pytest.raises(EngineError, match=r"junk\.gguf cannot be loaded: invalid magic"):
            await LlamaEngine(path, CARD, SMALL).start()

    async def test_the_reason_is_told_however_many_fail_at_once(self, tmp_path: Path) -> None:
        """llama.cpp's log is written by a thread of its own, which is late when the machine is busy."""
        path = tmp_path / "junk.gguf"
        path.write_bytes(b"this is not a model at all")
        told = await asyncio.gather(*(LlamaEngine(path, CARD, SMALL).start() for _ in range(6)), return_exceptions=True)
        assert {str(each) for each in told} == {
            "The model junk.gguf cannot be loaded: invalid magic characters: 'this', expected 'GGUF'"
        }

    @pytest.mark.model
    async def test_a_file_that_was_cut_is_told_as_incomplete(self, tmp_path: Path, model_file: Path) -> None:
        path = tmp_path / "cut.gguf"
        with model_file.open("rb") as whole:
            path.write_bytes(whole.read(40_000_000))
        with pytest.raises(EngineError, match="corrupted or incomplete"):
            await LlamaEngine(path, CARD, SMALL).start()

    async def test_a_failed_start_leaves_no_process_and_no_directory(self, tmp_path: Path) -> None:
        path = tmp_path / "junk.gguf"
        path.write_bytes(b"junk")
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        engine = LlamaEngine(path, CARD, SMALL)
        with pytest.raises(EngineError):
            await engine.start()
        assert engine.socket is None
        assert {child.pid for child in psutil.Process().children(recursive=True)} <= before

    @pytest.mark.model
    async def test_a_load_that_takes_too_long_is_given_up(self, model_file: Path) -> None:
        engine = LlamaEngine(model_file, CARD, replace(SMALL, start_timeout=0.01))
        with pytest.raises(EngineError, match="was not loaded after"):
            await engine.start()
        assert engine.pid is None


@pytest.mark.model
class TestOneModel:
    async def test_the_card_shows_the_context_of_one_slot(self, engine: LlamaEngine) -> None:
        assert [(card.id, card.context, card.digest) for card in engine.models] == [(CARD.id, 1024, "sha256:00")]

    async def test_only_the_owner_may_reach_the_socket(self, engine: LlamaEngine) -> None:
        assert engine.socket is not None
        assert engine.socket.parent.stat().st_mode & 0o777 == 0o700
        assert engine.socket.stat().st_mode & 0o077 == 0

    async def test_the_child_answers_nobody_without_the_key(self, engine: LlamaEngine) -> None:
        reader, writer = await asyncio.open_unix_connection(engine.socket)
        writer.write(b"GET /slots HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()
        await writer.wait_closed()

    async def test_neither_key_nor_model_path_stands_on_the_command_line(self, engine: LlamaEngine) -> None:
        assert engine.pid is not None
        assert psutil.Process(engine.pid).cmdline()[1:] == ["-P", "-m", "tokenplace.node.engines.llama_child"]

    @pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
    async def test_the_child_can_print_nothing_once_it_serves(self, model_file: Path) -> None:
        engine = LlamaEngine(
            model_file, CARD, replace(SMALL, confined=False)
        )  # a confined one shows only root its files
        await engine.start()
        assert {Path(f"/proc/{engine.pid}/fd/{number}").readlink() for number in (1, 2)} == {Path(os.devnull)}
        await engine.stop()

    @pytest.mark.parametrize(
        ("path", "field"), [("/v1/completions", "prompt"), ("/v1/responses", "input"), (CHAT, "messages")]
    )
    async def test_a_prompt_that_nobody_waits_for_any_more_is_dropped(
        self, engine: LlamaEngine, path: str, field: str
    ) -> None:
        """llama.cpp notices a client's leaving when it writes; that it writes after each batch is our doing."""
        words = "apple pear plum " * 200
        body = {"stream": True, field: [{"role": "user", "content": words}] if field == "messages" else words}
        async with engine.open(path, body), asyncio.timeout(10):
            while not await engine.busy_slots():
                await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            while await engine.busy_slots():
                await asyncio.sleep(0.01)
        computed = [slot.get("n_prompt_tokens", 0) for slot in await engine._ask_slots()]
        assert max(computed) < 500, "all 600 tokens were computed for nobody"

    async def test_progress_events_stay_between_us_and_llama_cpp(self, engine: LlamaEngine) -> None:
        body = {**ENDLESS, "max_tokens": 2, "messages": [{"role": "user", "content": "apple pear plum " * 60}]}
        said = await first_piece(engine, body, asyncio.Event())
        assert b"prompt_progress" not in said
        for line in said.decode().strip().split("\n\n")[:-1]:
            json.loads(line.removeprefix("data: "))

    async def test_nothing_is_kept_of_a_prompt_for_the_next_one(self, engine: LlamaEngine) -> None:
        body = {**ENDLESS, "max_tokens": 2, "stream_options": {"include_usage": True}}
        for _ in range(2):
            said = await first_piece(engine, body, asyncio.Event())
            usage = json.loads(said.decode().strip().split("\n\n")[-2].removeprefix("data: "))["usage"]
            assert usage["prompt_tokens_details"]["cached_tokens"] == 0

    async def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(self, engine: LlamaEngine) -> None:
        body = {**ENDLESS, "messages": [{"role": "user", "content": "apple pear plum " * 600}]}
        async with engine.open(CHAT, body) as answer:
            said = json.loads(b"".join([chunk async for chunk in answer.chunks()]))
        assert answer.status == 400
        assert said["error"]["n_ctx"] == 1024
        assert said["error"]["n_prompt_tokens"] > 1024

    async def test_a_second_start_is_refused(self, engine: LlamaEngine) -> None:
        with pytest.raises(EngineError):
            await engine.start()
        assert engine.ready


@pytest.mark.model
class TestOptions:
    async def test_a_lora_answers_under_its_own_name_and_leaves_the_base_alone(
        self, model_file: Path, tmp_path: Path
    ) -> None:
        """Random weights make nonsense of every answer, also while the base answers beside them."""
        wild = ModelId("smollm2-135m-instruct:wild")
        noise_adapter(tmp_path / "wild.gguf")
        engine = LlamaEngine(model_file, CARD, replace(SMALL, adapters={wild: tmp_path / "wild.gguf"}))
        await engine.start()
        assert [card.id for card in engine.models] == [CARD.id, wild]

        async def say(model: ModelId) -> str:
            body = {**ENDLESS, "model": model, "max_tokens": 12, "temperature": 0, "ignore_eos": False}
            events = (await first_piece(engine, body, asyncio.Event())).decode().split("\n\n")
            deltas = [json.loads(line[6:])["choices"] for line in events if line.startswith("data: {")]
            return "".join(choice["delta"].get("content") or "" for [choice] in deltas)

        before = await say(CARD.id)
        other, beside = await asyncio.gather(say(wild), say(CARD.id))
        assert before
        assert other != before
        assert beside == before
        await engine.stop()

    async def test_a_lora_that_does_not_fit_is_told_at_start(self, model_file: Path, tmp_path: Path) -> None:
        (tmp_path / "bad.gguf").write_bytes(b"junk")
        engine = LlamaEngine(model_file, CARD, replace(SMALL, adapters={ModelId("x"): tmp_path / "bad.gguf"}))
        with pytest.raises(EngineError, match="cannot be loaded"):
            await engine.start()

    async def test_embeddings_come_from_the_same_engine_when_wanted(self, model_file: Path) -> None:
        engine = LlamaEngine(model_file, CARD, replace(SMALL, embeddings=True, batch=256))
        await engine.start()
        async with engine.open("/v1/embeddings", {"input": ["one", "two " * 200], "model": CARD.id}) as answer:
            told = json.loads(b"".join([chunk async for chunk in answer.chunks()]))
        assert [len(item["embedding"]) for item in told["data"]] == [576, 576]
        said = await first_piece(engine, {**ENDLESS, "max_tokens": 2}, asyncio.Event())
        assert said.endswith(b"data: [DONE]\n\n")
        await engine.stop()

    async def test_a_prompt_that_is_reused_is_counted_as_cached(self, model_file: Path) -> None:
        engine = LlamaEngine(model_file, CARD, replace(SMALL, slots=1, reuse_prompts=True))
        await engine.start()
        body = {**ENDLESS, "max_tokens": 2, "stream_options": {"include_usage": True}}
        for _ in range(2):
            said = await first_piece(engine, body, asyncio.Event())
        usage = json.loads(said.decode().strip().split("\n\n")[-2].removeprefix("data: "))["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > 0
        await engine.stop()


@pytest.mark.model
class TestCrashes:
    async def test_answers_in_flight_raise_and_the_next_is_answered_by_a_new_child(self, engine: LlamaEngine) -> None:
        begun = asyncio.Event()
        asking = asyncio.create_task(first_piece(engine, ENDLESS, begun))
        await begun.wait()
        down, pid = asyncio.create_task(engine.wait_ready(False)), engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineCrashed):
            await asking
        async with asyncio.timeout(30):
            await down
            await engine.wait_ready()
        assert engine.pid != pid
        said = await first_piece(engine, {**ENDLESS, "max_tokens": 2}, asyncio.Event())
        assert said.endswith(b"data: [DONE]\n\n")

    async def test_an_idle_engine_is_restarted_too(self, engine: LlamaEngine) -> None:
        down = asyncio.create_task(engine.wait_ready(False))
        await asyncio.sleep(0)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            await down
            await engine.wait_ready()
        assert await engine.busy_slots() == 0

    async def test_an_engine_stopped_while_it_restarts_leaves_nothing(self, engine: LlamaEngine) -> None:
        before, socket = engine.pid, engine.socket
        assert before is not None
        assert socket is not None
        down = asyncio.create_task(engine.wait_ready(False))
        os.kill(before, signal.SIGKILL)
        await down
        await engine.stop()
        assert not socket.parent.exists()
        assert engine.socket is None
        assert not [one for one in psutil.Process().children() if "llama_child" in " ".join(one.cmdline())]

    async def test_a_stuck_child_is_killed_when_it_does_not_end_by_itself(self, engine: LlamaEngine) -> None:
        assert engine.pid is not None
        pid = engine.pid
        os.kill(pid, signal.SIGSTOP)  # not even the end of its pipe reaches it now
        async with asyncio.timeout(10):
            await engine.stop()
        assert not psutil.pid_exists(pid)


PARENT = """
import asyncio, sys
from pathlib import Path
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions
from tokenplace.wire.card import ModelCard

async def main():
    engine = LlamaEngine(Path(sys.argv[1]), ModelCard("x", 1), LlamaOptions(slots=1, context=512, threads=1))
    await engine.start()
    print(engine.pid, engine.socket.parent, flush=True)
    await asyncio.sleep(60)

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


class TestOrphans:
    @pytest.mark.model
    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    async def test_the_child_ends_with_its_parent_however_that_ends(
        self, model_file: Path, how: signal.Signals, loop: str
    ) -> None:
        """On both event loops: they hand a child its pipes in different ways."""
        pytest.importorskip(loop)
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(model_file), loop, stdout=PIPE)
        assert parent.stdout is not None
        pid, home = (await parent.stdout.readline()).decode().split()
        assert psutil.pid_exists(int(pid))
        parent.send_signal(how)
        await parent.wait()
        await gone(int(pid))
        assert not Path(home).exists()

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when the load has ended")
    async def test_the_child_ends_with_its_parent_even_while_it_loads(self, tmp_path: Path) -> None:
        """llama.cpp holds Python's lock while it loads, here from a named pipe that gives nothing."""
        model = tmp_path / "slow.gguf"
        os.mkfifo(model)
        child = await a_child(a_config(str(model)))
        writer = await opened_by_the_child(model)
        assert child.stdin is not None
        assert child.returncode is None
        child.stdin.close()  # what the end of this process would do
        async with asyncio.timeout(20):
            assert await child.wait() == -signal.SIGIO
        os.close(writer)

    @pytest.mark.model
    async def test_ctrl_c_in_the_terminal_does_not_reach_the_child(self, engine: LlamaEngine) -> None:
        assert engine.pid is not None
        assert os.getpgid(engine.pid) != os.getpgid(0)


def noise_adapter(path: Path, rank: int = 4, width: int = 576) -> None:
    """A LoRA of noise for every layer's queries, in the GGUF format (github.com/ggml-org/ggml, docs/gguf.md)."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    noise = random.Random(1)
    fields = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.type") + struct.pack("<I", 8) + text("adapter"),
        text("adapter.type") + struct.pack("<I", 8) + text("lora"),
        text("adapter.lora.alpha") + struct.pack("<If", 6, rank),
    ]
    tensors, data = [], b""
    for layer in range(30):
        for part, shape in (("lora_a", (width, rank)), ("lora_b", (rank, width))):
            name = text(f"blk.{layer}.attn_q.weight.{part}")
            tensors.append(name + struct.pack("<IQQIQ", 2, *shape, 0, len(data)))
            data += array("f", (noise.gauss(0, 0.5) for _ in range(rank * width))).tobytes()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields) + b"".join(tensors)
    path.write_bytes(head + bytes(-len(head) % 32) + data)


def a_config(model: str, adapters: tuple[str, ...] = ()) -> ChildConfig:
    return ChildConfig(
        model=model, key="the key", socket=None, slots=1, context=512, threads=1, batch=64,
        reuse_prompts=False, cache_ram_mib=0, gpu_layers=0, split=(), vision=None, adapters=adapters, embeddings=False,
    )  # fmt: skip


async def a_child(config: ChildConfig) -> Process:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "tokenplace.node.engines.llama_child", stdin=PIPE, stdout=PIPE
    )
    assert child.stdin is not None
    child.stdin.write(b'{"confine": true, "network": true}\n' + config.line())
    return child


async def opened_by_the_child(fifo: Path) -> int:
    """Return the writing end, once somebody reads."""
    async with asyncio.timeout(10):
        while True:
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                await asyncio.sleep(0.01)

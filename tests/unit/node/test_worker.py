from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from tokenplace.errors import ApiError, EngineCrashed, EngineError, EngineFull
from tokenplace.link.ends import NodeEnd
from tokenplace.link.events import Offered
from tokenplace.node.api import NodeApi
from tokenplace.node.outbox import GATHER
from tokenplace.node.runs import Run, Runs
from tokenplace.node.worker import SealedTask, Worker
from tokenplace.openai.calls import Call
from tokenplace.sealing.exchange import MAX_RECORD_DATA, open_request, seal_request
from tokenplace.sealing.keys import KeyRing, SealingPrivateKey
from tokenplace.wire.ids import Sid
from tokenplace.wire.limits import CREDIT_STEP, CREDIT_WINDOW, TIMING
from tokenplace.wire.messages import ENGINE_FAILED, ENGINE_FULL, Outcome, Reason
from tokenplace.wire.request import Kem
from tokenplace.wire.stream import RecordKind, RecordSplitter
from unit.relay.fake_time import now, run

NOW_MS = 1_700_000_000_000
RING = KeyRing(SealingPrivateKey.generate(now_ms=NOW_MS, kem=Kem.X25519))
CALL = Call("/v1/chat/completions", b"{}").pack()
Script = Callable[[], AsyncGenerator[bytes]]


@dataclass
class ScriptedAnswer:
    chunks: AsyncIterator[bytes]
    status: int = 200
    content_type: str = "text/event-stream"
    usage: dict[str, Any] = field(default_factory=lambda: {"completion_tokens": 3})

    def body(self) -> AsyncIterator[bytes]:
        return self.chunks


class ScriptedApi:
    """Answers with what the test wrote; remembers that it was let go."""

    def __init__(self, script: Script, *, refuses: Exception | None = None, **fields: Any) -> None:
        self.script = script
        self.refuses = refuses
        self.fields = fields
        self.opened: list[Call] = []
        self.left = 0

    @asynccontextmanager
    async def answer(self, path: str, body: bytes) -> AsyncIterator[ScriptedAnswer]:
        self.opened.append(Call(path, body))
        if self.refuses is not None:
            raise self.refuses
        try:
            yield ScriptedAnswer(self.script(), **self.fields)
        finally:
            self.left += 1


class Bench:
    """One job at a worker, attached to a link that nobody reads; its records are opened here."""

    def __init__(self, script: Script, body: bytes = CALL, **fields: Any) -> None:
        key = RING.public_keys(NOW_MS)[0]
        self.sealed, self.pending = seal_request(body, key, now_ms=NOW_MS)
        self.api = ScriptedApi(script, **fields)
        self.runs = Runs(slots=1, timing=TIMING, start=lambda *_: None, stop=lambda _: None)
        self.end = NodeEnd()
        self.end._open.add(Sid(1))
        self.runs.link_up(self.end)
        self.watched: list[Callable[[], dict[str, Any]]] = []
        self.worker = Worker(self.runs, now, lambda _run, usage: self.watched.append(usage))
        self.run = cast("Run", self.runs.offered(self.end, Offered(Sid(1), self.sealed), now()))

    @property
    def answered(self) -> list[tuple[str, int]]:
        """(outcome, tokens as its owner may ask for them) of an answer that reached an end of its own."""
        ended = self.run.ended
        if ended is None or ended.code == Outcome.CANCELLED:
            return []
        return [(ended.code, usage()["completion_tokens"]) for usage in self.watched]

    def start(self) -> asyncio.Task[None]:
        opened = open_request(self.sealed, RING, now_ms=NOW_MS)
        return asyncio.ensure_future(self.worker.work(self.run, SealedTask(cast("NodeApi", self.api), opened)))

    def read(self) -> list[tuple[RecordKind, bytes]]:
        """Every record so far, opened as the client would."""
        nonce, *records = RecordSplitter().feed(b"".join(self.run.records))
        opener = self.pending.accept(nonce.payload)
        return [(record.kind, opener.open(record)) for record in records]

    def data(self) -> list[bytes]:
        return [data for kind, data in self.read() if kind is RecordKind.DATA]

    def last(self) -> tuple[RecordKind, Any]:
        kind, data = self.read()[-1]
        return kind, json.loads(data)


def bench_of(script: Script, body: bytes = CALL, **fields: Any) -> Bench:
    """After the whole answer."""

    async def main() -> Bench:
        bench = Bench(script, body, **fields)
        await bench.start()
        return bench

    return run(main)


async def words() -> AsyncGenerator[bytes]:
    for word in (b"one", b"two", b"three"):
        yield word


def test_an_answer_is_head_data_and_a_sealed_end_with_its_usage() -> None:
    bench = bench_of(words)
    kinds = [kind for kind, _ in bench.read()]
    assert (kinds[0], kinds[-1]) == (RecordKind.HEAD, RecordKind.FINAL)
    assert json.loads(bench.read()[0][1]) == {"status": 200, "content_type": "text/event-stream"}
    assert b"".join(bench.data()) == b"onetwothree"
    assert bench.last() == (RecordKind.FINAL, {"usage": {"completion_tokens": 3}})
    assert bench.answered == [(Outcome.DONE, 3)]
    assert (bench.runs.busy, bench.api.left) == (0, 1)


def test_the_first_piece_goes_out_at_once_and_the_rest_is_gathered() -> None:
    async def main() -> None:
        async def tokens() -> AsyncGenerator[bytes]:
            for number in range(10):
                yield b"%d" % number
                await asyncio.sleep(0.01)

        bench = Bench(tokens)
        task = bench.start()
        await asyncio.sleep(0.001)
        assert bench.data() == [b"0"]
        await task
        pieces = bench.data()
        assert pieces[0] == b"0"
        assert 2 <= len(pieces) <= 4
        assert b"".join(pieces) == b"0123456789"

    run(main)


def test_a_gathered_piece_does_not_wait_for_the_next_word() -> None:
    async def main() -> None:
        async def tokens() -> AsyncGenerator[bytes]:
            yield b"first"
            yield b"second"
            await asyncio.sleep(60)

        bench = Bench(tokens)
        task = bench.start()
        await asyncio.sleep(GATHER + 0.001)
        assert bench.data() == [b"first", b"second"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main)


def test_a_large_piece_is_cut_into_records_that_credit_can_always_pass() -> None:
    async def large() -> AsyncGenerator[bytes]:
        yield bytes(3 * MAX_RECORD_DATA + 1)

    async def main() -> Bench:
        bench = Bench(large)
        task = bench.start()
        for _ in range(50):
            await asyncio.sleep(0)
            self_sent = bench.run.attached.sent_bytes if bench.run.attached else 0
            bench.runs.granted(bench.end, Sid(1), self_sent + CREDIT_WINDOW, now())
        await task
        return bench

    bench = run(main)
    assert [len(piece) for piece in bench.data()] == [MAX_RECORD_DATA] * 3 + [1]
    assert max(map(len, bench.run.records)) <= CREDIT_WINDOW - CREDIT_STEP


def test_a_reader_that_does_not_read_stops_the_engine_until_it_does() -> None:
    async def main() -> None:
        made = 0

        async def endless() -> AsyncGenerator[bytes]:
            nonlocal made
            while True:
                made += 1
                await asyncio.sleep(GATHER)
                yield bytes(8000)

        bench = Bench(endless)
        task = bench.start()
        await asyncio.sleep(60)
        stood = made
        assert stood * 8000 < 3 * CREDIT_WINDOW
        await asyncio.sleep(60)
        assert made == stood
        bench.runs.granted(bench.end, Sid(1), 4 * CREDIT_WINDOW, now())
        await asyncio.sleep(60)
        assert made > stood
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main)


def test_an_engine_that_fails_under_the_answer_ends_it_with_a_sealed_error() -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"some"
        raise EngineCrashed

    bench = bench_of(failing)
    assert bench.data() == [b"some"]
    kind, told = bench.last()
    assert (kind, told["error"]["code"], told["usage"]) == (
        RecordKind.ABORT,
        "engine_crashed",
        {"completion_tokens": 3},
    )
    assert bench.answered == [(Outcome.ABORTED, 3)]
    assert bench.run.ended == Reason(Outcome.ABORTED, ENGINE_FAILED)
    assert bench.runs.busy == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineError("the secret words"), ENGINE_FAILED),
        (EngineCrashed("the secret words"), ENGINE_FAILED),
        (EngineFull("the secret words"), ENGINE_FULL),
    ],
)
def test_an_engine_that_fails_before_its_first_piece_leaves_the_answer_to_another_node(
    error: EngineError, code: str
) -> None:
    bench = bench_of(words, refuses=error)
    ended = bench.run.ended
    assert ended is not None
    assert (ended.code, bench.run.count, bench.runs.busy) == (code, 0, 0)
    assert ended.message.endswith(".")
    assert "secret" not in ended.message


def test_what_is_wrong_with_a_request_is_told_under_the_seal_and_never_of_the_engine() -> None:
    async def refusing() -> AsyncGenerator[bytes]:
        yield b"some"
        raise ApiError("Too long.", param="messages", code="context_length_exceeded")

    bench = bench_of(refusing)
    kind, told = bench.last()
    assert (kind, told["error"]["code"]) == (RecordKind.ABORT, "context_length_exceeded")
    assert bench.run.ended == Reason(Outcome.ABORTED)


def test_a_sealed_call_that_is_none_is_answered_under_the_seal() -> None:
    bench = bench_of(words, b"junk")
    assert bench.last()[0] is RecordKind.ABORT
    assert bench.last()[1]["error"]["code"] == "bad_format"
    assert bench.api.opened == []


def test_a_bug_ends_its_answer_only_and_tells_nothing_of_itself() -> None:
    async def buggy() -> AsyncGenerator[bytes]:
        yield b"some"
        raise ZeroDivisionError("the secret words of somebody")

    bench = bench_of(buggy)
    kind, told = bench.last()
    assert (kind, told["error"]["code"]) == (RecordKind.ABORT, "engine_error")
    assert "secret" not in json.dumps(told)
    assert bench.run.ended == Reason(Outcome.ABORTED), "a request that finds a bug must not switch the node off"


@pytest.mark.parametrize("usage", [{"completion_tokens": 3}, {"completion_tokens": 3, "more": "x" * 100_000}])
def test_no_message_of_an_engine_is_too_long_to_end_with(usage: dict[str, Any]) -> None:
    async def talkative() -> AsyncGenerator[bytes]:
        yield b"some"
        raise EngineError("x" * 100_000)

    bench = bench_of(talkative, usage=usage)
    kind, told = bench.last()
    assert (kind, told["error"]["code"]) == (RecordKind.ABORT, "engine_error")
    assert bench.answered == [(Outcome.ABORTED, 3)]


def test_a_cancelled_answer_lets_go_of_the_engine_and_its_slot() -> None:
    async def main() -> None:
        async def waiting() -> AsyncGenerator[bytes]:
            yield b"some"
            await asyncio.get_running_loop().create_future()

        bench = Bench(waiting)
        task = bench.start()
        await asyncio.sleep(1)
        assert bench.runs.busy == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (bench.runs.busy, bench.api.left, bench.answered) == (0, 1, [])

    run(main)

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from tokenplace.errors import ApiError, EngineCrashed, TooLarge
from tokenplace.link.ends import NodeEnd
from tokenplace.link.events import Offered
from tokenplace.node.classic import ClassicDoor, ClassicTask
from tokenplace.node.classic.answering import Message, Reply
from tokenplace.node.runs import Run, Runs
from tokenplace.node.worker import Worker
from tokenplace.wire.classic import ClassicRequest, Door, LineReader
from tokenplace.wire.ids import Sid
from tokenplace.wire.limits import CREDIT_WINDOW, MAX_RECORD, TIMING
from tokenplace.wire.messages import ENGINE_FAILED, Outcome, Reason
from tokenplace.wire.stream import RecordKind, RecordSplitter
from unit.relay.fake_time import now, run

Script = Callable[[], AsyncIterator[Message]]
PACKED = ClassicRequest(Door.RELAY, {}).pack()


class ScriptedDoor:
    """Answers with what the test wrote; remembers that it was let go."""

    def __init__(self, script: Script, error: ApiError | None = None, refuses: Exception | None = None) -> None:
        self.script = script
        self.refuses = refuses
        self.error = error
        self.left = 0

    @asynccontextmanager
    async def answer_open(self, data: bytes) -> AsyncIterator[Reply]:
        assert data == PACKED
        if self.refuses is not None:
            raise self.refuses
        try:
            status = 200 if self.error is None else self.error.status
            yield Reply(status, self.script(), lambda: {"completion_tokens": 3}, self.error)
        finally:
            self.left += 1


class Bench:
    """One job at a worker, attached to a link that nobody reads."""

    def __init__(self, script: Script, error: ApiError | None = None, refuses: Exception | None = None) -> None:
        self.door = ScriptedDoor(script, error, refuses)
        self.runs = Runs(slots=1, timing=TIMING, start=lambda *_: None, stop=lambda _: None)
        self.end = NodeEnd()
        self.end._open.add(Sid(1))
        self.runs.link_up(self.end)
        self.worker = Worker(self.runs, now)
        self.run = cast("Run", self.runs.offered(self.end, Offered(Sid(1), PACKED), now()))

    def start(self) -> asyncio.Task[None]:
        task = ClassicTask(cast("ClassicDoor", self.door), PACKED)
        return asyncio.ensure_future(self.worker.work(self.run, task))

    def lines(self) -> list[dict[str, Any]]:
        reader = LineReader()
        records = RecordSplitter().feed(b"".join(self.run.records))
        assert {record.kind for record in records} == {RecordKind.CLASSIC}
        return [line for record in records for line in reader.feed(record.payload)]


def bench_of(script: Script, error: ApiError | None = None, refuses: Exception | None = None) -> Bench:
    async def main() -> Bench:
        bench = Bench(script, error, refuses)
        await bench.start()
        return bench

    return run(main)


async def two() -> AsyncIterator[Message]:
    yield {"number": 1}
    yield {"number": 2}


async def none() -> AsyncIterator[Message]:
    for message in list[Message]():
        yield message


def test_an_answer_is_a_status_messages_and_an_end_with_its_usage() -> None:
    bench = bench_of(two)
    assert bench.lines() == [
        {"status": 200},
        {"message": {"number": 1}},
        {"message": {"number": 2}},
        {"end": True, "usage": {"completion_tokens": 3}},
    ]
    assert bench.run.ended is not None
    assert (bench.run.ended.code, bench.runs.busy, bench.door.left) == (Outcome.DONE, 0, 1)


def test_a_refusal_is_a_status_and_an_error_and_nothing_follows() -> None:
    bench = bench_of(none, ApiError("no", status=404, code="nothing"))
    status, error = bench.lines()
    assert (status, error["error"]["code"]) == ({"status": 404}, "nothing")


def test_an_engine_that_fails_ends_the_answer_without_an_end() -> None:
    async def failing() -> AsyncIterator[Message]:
        yield {"number": 1}
        raise EngineCrashed

    bench = bench_of(failing)
    assert bench.lines()[-1]["error"]["code"] == "engine_crashed"
    assert bench.run.ended is not None
    assert (bench.run.ended.code, bench.run.ended.message) == (Outcome.ABORTED, ENGINE_FAILED)


def test_an_engine_that_fails_at_once_is_told_since_no_other_node_has_the_key() -> None:
    bench = bench_of(two, refuses=EngineCrashed())
    (line,) = bench.lines()
    assert line["error"]["code"] == "engine_crashed"
    assert bench.run.ended == Reason(Outcome.ABORTED, ENGINE_FAILED)


def test_what_is_wrong_with_a_request_is_told_and_never_of_the_engine() -> None:
    async def refusing() -> AsyncIterator[Message]:
        yield {"number": 1}
        raise TooLarge("It is too long for one envelope.")

    bench = bench_of(refusing)
    assert bench.lines()[-1]["error"]["code"] == "too_large"
    assert bench.run.ended == Reason(Outcome.ABORTED)


def test_a_bug_ends_its_answer_only_and_tells_nothing_of_itself() -> None:
    async def buggy() -> AsyncIterator[Message]:
        yield {"number": 1}
        raise ZeroDivisionError("the secret words of somebody")

    bench = bench_of(buggy)
    assert "secret" not in json.dumps(bench.lines())
    assert bench.lines()[-1]["error"]["code"] == "engine_error"
    assert bench.run.ended == Reason(Outcome.ABORTED)
    assert bench.runs.busy == 0


def test_a_long_message_is_cut_into_records_and_a_reader_that_does_not_read_stops_the_engine() -> None:
    async def main() -> None:
        made = 0

        async def endless() -> AsyncIterator[Message]:
            nonlocal made
            while True:
                made += 1
                yield {"words": "x" * 3 * MAX_RECORD}

        bench = Bench(endless)
        task = bench.start()
        await asyncio.sleep(60)
        stood = made
        assert stood * 3 * MAX_RECORD < 3 * CREDIT_WINDOW
        bench.runs.granted(bench.end, Sid(1), 4 * CREDIT_WINDOW, now())
        await asyncio.sleep(60)
        assert made > stood
        assert max(map(len, bench.run.records)) <= MAX_RECORD + 5
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (bench.runs.busy, bench.door.left) == (0, 1)

    run(main)

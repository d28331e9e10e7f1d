"""One job from the opened request to the last sealed record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from tokenplace.errors import ApiError, EngineError, TokenPlaceError, WireError
from tokenplace.node.api import NodeApi
from tokenplace.node.runs import Run, Runs
from tokenplace.openai.calls import Abort, Call, Final, Head
from tokenplace.sealing.exchange import MAX_RECORD_DATA, OpenedRequest, RecordSealer
from tokenplace.wire.messages import ENGINE_FAILED, Outcome, Reason
from tokenplace.wire.stream import RecordKind

GATHER = 0.045
"""Seconds over which pieces are gathered into one record: the sizes and times of single tokens spell the words
(arXiv 2403.09751, 2511.03675). The first piece of an answer goes out at once."""

LONGEST_ERROR = 1000
"""Characters of an error that go under the seal: it has to fit into one record, whatever an engine said."""

_log = structlog.get_logger("tokenplace.node")


class Worker:
    """Answers opened requests. `answered(outcome, tokens)` hears of every answer that ended, without a word of it."""

    def __init__(
        self,
        api: NodeApi,
        runs: Runs,
        clock: Callable[[], float],
        answered: Callable[[Outcome, int], None],
    ) -> None:
        self._api = api
        self._runs = runs
        self._clock = clock
        self._answered = answered

    async def answer(self, run: Run, opened: OpenedRequest) -> None:
        """Until the answer has ended, one way or the other. Cancelling lets go of the engine at once."""
        outbox = _Outbox(self._runs, run, opened.answer(), self._clock)
        usage = None
        try:
            try:
                call = Call.parse(opened.body)
                async with self._api.answer(call.path, call.body) as answer:
                    try:
                        outbox.head(Head(answer.status, answer.content_type))
                        async for chunk in answer.body():
                            await outbox.write(chunk)
                    finally:
                        usage = answer.usage
                outbox.end(RecordKind.FINAL, Final(usage).pack())
                self._finish(run, Outcome.DONE, usage)
            except (EngineError, ApiError, WireError) as error:
                kind = error.type if isinstance(error, ApiError) else "server_error"
                self._abort(outbox, run, error, kind, usage)
            except Exception as error:  # noqa: BLE001 - the last door: one answer's bug must not end the others
                _log.error("job.bug", error=type(error).__name__)
                broken = EngineError("The node made a mistake with this answer; it was not your request's fault.")
                self._abort(outbox, run, broken, "server_error", usage)
        finally:
            outbox.close()
            self._runs.release(run)
            _told(run, usage)

    def _abort(
        self, outbox: _Outbox, run: Run, error: TokenPlaceError, kind: str, usage: dict[str, object] | None
    ) -> None:
        abort = Abort(error.message[:LONGEST_ERROR], kind, error.code, usage)
        packed = abort.pack()
        if len(packed) > MAX_RECORD_DATA:  # an engine's oversized usage: an error here would end the whole node
            packed = replace(abort, usage=None).pack()
        outbox.end(RecordKind.ABORT, packed)
        self._finish(run, Outcome.ABORTED, usage, ENGINE_FAILED if isinstance(error, EngineError) else "")
        _log.warning("job.aborted", code=error.code)

    def _finish(self, run: Run, outcome: Outcome, usage: dict[str, object] | None, openly: str = "") -> None:
        self._runs.finish(run, Reason(outcome, openly), self._clock())
        tokens = (usage or {}).get("completion_tokens")
        self._answered(outcome, tokens if isinstance(tokens, int) else 0)


def _told(run: Run, usage: dict[str, object] | None) -> None:
    """One line for each answer, also for one that was cancelled: an outcome and counts, nothing of what was said."""
    counts = {kind: (usage or {}).get(kind) for kind in ("prompt_tokens", "completion_tokens")}
    outcome = run.ended.code if run.ended is not None else Outcome.CANCELLED.value
    _log.info("job.ended", outcome=outcome, **counts)


class _Outbox:
    """Gathers an answer's bytes into sealed records and hands them to the run."""

    def __init__(self, runs: Runs, run: Run, sealer: RecordSealer, clock: Callable[[], float]) -> None:
        self._runs = runs
        self._run = run
        self._sealer = sealer
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._waiting = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._last_flush = 0.0
        run.on_room = self._room.set

    def head(self, head: Head) -> None:
        """The first record, with the nonce before it."""
        self._push(RecordKind.HEAD, head.pack())

    async def write(self, chunk: bytes) -> None:
        """More of the body. Waits while the reader is slow."""
        self._waiting += chunk
        now = self._clock()
        if len(self._waiting) >= MAX_RECORD_DATA or now - self._last_flush >= GATHER:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._last_flush + GATHER - now, self._flush)
        while not self._run.has_room:
            self._room.clear()
            await self._room.wait()

    def end(self, kind: RecordKind, data: bytes) -> None:
        """The last record. An answer that has not begun may end with an ABORT at once."""
        self._flush()
        self._push(kind, data)

    def close(self) -> None:
        """Let go of the timer and the run."""
        self._stop_timer()
        self._run.on_room = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        self._stop_timer()
        if not self._waiting:
            return
        self._last_flush = self._clock()
        data = bytes(self._waiting)
        self._waiting.clear()
        for start in range(0, len(data), MAX_RECORD_DATA):
            self._push(RecordKind.DATA, data[start : start + MAX_RECORD_DATA])

    def _push(self, kind: RecordKind, data: bytes) -> None:
        opening = b"" if self._sealer.next_number else self._sealer.nonce_record().pack()
        self._runs.push(self._run, opening + self._sealer.seal(kind, data).pack(), self._clock())

"""One job from the opened request to the last sealed record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol

import structlog

from tokenplace.errors import ApiError, EngineError, TokenPlaceError, WireError
from tokenplace.node.api.answers import Answer
from tokenplace.node.outbox import Outbox
from tokenplace.node.runs import Run, Runs
from tokenplace.openai.calls import Abort, Call, Final, Head
from tokenplace.openai.usage import Usage
from tokenplace.sealing.exchange import MAX_RECORD_DATA, OpenedRequest, RecordSealer
from tokenplace.wire.messages import ENGINE_FAILED, Outcome, Reason
from tokenplace.wire.stream import RecordKind

LONGEST_ERROR = 1000
"""Characters of an error that go under the seal: it has to fit into one record, whatever an engine said."""

_log = structlog.get_logger("tokenplace.node")


class Api(Protocol):
    """Who knows the answers."""

    def answer(self, path: str, body: bytes) -> AbstractAsyncContextManager[Answer]:
        """Answer one request."""


class Worker:
    """Answers opened requests. `watch(run, usage)` is told of each how to ask what it has cost so far."""

    def __init__(
        self,
        api: Api,
        runs: Runs,
        clock: Callable[[], float],
        watch: Callable[[Run, Callable[[], Usage]], None] = lambda _run, _usage: None,
    ) -> None:
        self._api = api
        self._runs = runs
        self._clock = clock
        self._watch = watch

    async def answer(self, run: Run, opened: OpenedRequest) -> None:
        """Until the answer has ended, one way or the other. Cancelling lets go of the engine at once."""
        outbox = _Outbox(self._runs, run, opened.answer(), self._clock)
        usage = None
        try:
            try:
                call = Call.parse(opened.body)
                async with self._api.answer(call.path, call.body) as answer:
                    self._watch(run, partial(_usage_of, answer))
                    try:
                        outbox.head(Head(answer.status, answer.content_type))
                        async for chunk in answer.body():
                            await outbox.write(chunk)
                    finally:
                        usage = answer.usage
                outbox.end(RecordKind.FINAL, Final(usage).pack())
                self._finish(run, Outcome.DONE)
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
            told(run, usage)

    def _abort(
        self, outbox: _Outbox, run: Run, error: TokenPlaceError, kind: str, usage: dict[str, object] | None
    ) -> None:
        abort = Abort(error.message[:LONGEST_ERROR], kind, error.code, usage)
        packed = abort.pack()
        if len(packed) > MAX_RECORD_DATA:  # an engine's oversized usage: an error here would end the whole node
            packed = replace(abort, usage=None).pack()
        outbox.end(RecordKind.ABORT, packed)
        self._finish(run, Outcome.ABORTED, ENGINE_FAILED if isinstance(error, EngineError) else "")
        _log.warning("job.aborted", code=error.code)

    def _finish(self, run: Run, outcome: Outcome, openly: str = "") -> None:
        self._runs.finish(run, Reason(outcome, openly), self._clock())


def _usage_of(answer: Answer) -> Usage:
    return answer.usage


def told(run: Run, usage: dict[str, object] | None) -> None:
    """One line for each answer, also for one that was cancelled: an outcome and counts, nothing of what was said."""
    counts = {kind: (usage or {}).get(kind) for kind in ("prompt_tokens", "completion_tokens")}
    outcome = run.ended.code if run.ended is not None else Outcome.CANCELLED.value
    _log.info("job.ended", outcome=outcome, **counts)


class _Outbox(Outbox):
    """Seals an answer's records and hands them to the run."""

    def __init__(self, runs: Runs, run: Run, sealer: RecordSealer, clock: Callable[[], float]) -> None:
        super().__init__(run, clock, MAX_RECORD_DATA)
        self._runs = runs
        self._sealer = sealer

    def head(self, head: Head) -> None:
        """The first record, with the nonce before it."""
        self._push(RecordKind.HEAD, head.pack())

    def put(self, data: bytes) -> None:
        """The next bytes of the body."""
        self._push(RecordKind.DATA, data)

    def end(self, kind: RecordKind, data: bytes) -> None:
        """The last record. An answer that has not begun may end with an ABORT at once."""
        self.flush()
        self._push(kind, data)

    def _push(self, kind: RecordKind, data: bytes) -> None:
        opening = b"" if self._sealer.next_number else self._sealer.nonce_record().pack()
        self._runs.push(self._run, opening + self._sealer.seal(kind, data).pack(), self._clock())

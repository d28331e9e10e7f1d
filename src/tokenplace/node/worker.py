"""One job from the opened request to the last record. What comes over the sealed exchange is a SealedTask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Generic, Protocol, TypeVar

import structlog

from tokenplace.errors import ApiError, EngineError, EngineFull, TokenPlaceError, WireError
from tokenplace.node.api.answers import Answer
from tokenplace.node.outbox import Outbox
from tokenplace.node.runs import Run, Runs
from tokenplace.openai.calls import Abort, Call, Final, Head
from tokenplace.openai.usage import Usage
from tokenplace.sealing.exchange import MAX_RECORD_DATA, OpenedRequest, RecordSealer
from tokenplace.wire.messages import ENGINE_FAILED, ENGINE_FULL, Outcome, Reason
from tokenplace.wire.stream import RecordKind

LONGEST_ERROR = 1000
"""Characters of an error that go under the seal: it has to fit into one record, whatever an engine said."""

O = TypeVar("O", bound=Outbox)  # noqa: E741 - an outbox
Cost = Callable[[], Usage]
"""What an answer has cost so far."""

_log = structlog.get_logger("tokenplace.node")


class Task(ABC, Generic[O]):
    """One request, and how its answer and its failures are written. The worker sees to the ends."""

    usage: Usage | None = None
    """What the answer has cost; None while there is none."""
    moves = False
    """Whether another node could answer it too."""

    @abstractmethod
    def outbox(self, run: Run, push: Callable[[bytes], None], clock: Callable[[], float]) -> O:
        """Where its records are made; `push` takes them."""

    @abstractmethod
    async def answer(self, outbox: O, watch: Callable[[Cost], None]) -> None:
        """Write the whole answer, to its end. `watch` is told how to ask what it has cost so far.

        Raises EngineError, ApiError or WireError.
        """

    @abstractmethod
    def abort(self, outbox: O, error: TokenPlaceError) -> None:
        """Write why the answer ends here, as its last record."""


class Worker:
    """Does tasks. `watch(run, cost)` is told of each how to ask what it has cost so far."""

    def __init__(
        self,
        runs: Runs,
        clock: Callable[[], float],
        watch: Callable[[Run, Cost], None] = lambda _run, _cost: None,
    ) -> None:
        self._runs = runs
        self._clock = clock
        self._watch = watch

    async def work(self, run: Run, task: Task[O]) -> None:
        """Until the answer has ended, one way or the other. Cancelling lets go of the engine at once."""
        outbox = task.outbox(run, lambda record: self._runs.push(run, record, self._clock()), self._clock)
        try:
            try:
                await task.answer(outbox, partial(self._watch, run))
                reason = Reason(Outcome.DONE)
            except EngineError as error:
                full = isinstance(error, EngineFull)
                if task.moves and not run.count:
                    reason = _FULL if full else _FAILED  # fixed words: the engine's own may quote the request's
                    _log.warning("job.not_begun", code=error.code)
                else:
                    reason = _aborted(task, outbox, error, "" if full else ENGINE_FAILED)
            except (ApiError, WireError) as error:
                reason = _aborted(task, outbox, error)
            except Exception as error:  # noqa: BLE001 - the last door: one answer's bug must not end the others
                _log.error("job.bug", error=type(error).__name__)
                broken = EngineError("The node made a mistake with this answer; it was not your request's fault.")
                reason = _aborted(task, outbox, broken)  # nothing openly: a request that finds a bug is no illness
            self._runs.finish(run, reason, self._clock())
        finally:
            outbox.close()
            self._runs.release(run)
            _told(run, task.usage)


_FAILED = Reason(ENGINE_FAILED, "The model runtime on the node failed before its first word. Try again.")
_FULL = Reason(ENGINE_FULL, "Other answers take all that the node's model runtime has. Try again soon.")


def _aborted(task: Task[O], outbox: O, error: TokenPlaceError, openly: str = "") -> Reason:
    task.abort(outbox, error)
    _log.warning("job.aborted", code=error.code)
    return Reason(Outcome.ABORTED, openly)


def _told(run: Run, usage: Usage | None) -> None:
    """One line for each answer, also for one that was cancelled: an outcome and counts, nothing of what was said."""
    counts = {kind: (usage or {}).get(kind) for kind in ("prompt_tokens", "completion_tokens")}
    outcome = run.ended.code if run.ended is not None else Outcome.CANCELLED.value
    _log.info("job.ended", outcome=outcome, **counts)


# -- under the seal ----------------------------------------------------------------------------------------------------


class Api(Protocol):
    """Who knows the answers."""

    def answer(self, path: str, body: bytes) -> AbstractAsyncContextManager[Answer]:
        """Answer one request."""


class SealedOutbox(Outbox):
    """Seals an answer's records."""

    def __init__(
        self, run: Run, push: Callable[[bytes], None], clock: Callable[[], float], sealer: RecordSealer
    ) -> None:
        super().__init__(run, clock, MAX_RECORD_DATA)
        self._give = push
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
        self._give(opening + self._sealer.seal(kind, data).pack())


class SealedTask(Task[SealedOutbox]):
    """A request that came over the sealed exchange, answered by `api`."""

    moves = True

    def __init__(self, api: Api, opened: OpenedRequest) -> None:
        self._api = api
        self._opened = opened

    def outbox(self, run: Run, push: Callable[[bytes], None], clock: Callable[[], float]) -> SealedOutbox:
        """As `Task.outbox`."""
        return SealedOutbox(run, push, clock, self._opened.answer())

    async def answer(self, outbox: SealedOutbox, watch: Callable[[Cost], None]) -> None:
        """As `Task.answer`."""
        call = Call.parse(self._opened.body)
        async with self._api.answer(call.path, call.body) as answer:
            watch(partial(_usage_of, answer))
            try:
                outbox.head(Head(answer.status, answer.content_type))
                async for chunk in answer.body():
                    await outbox.write(chunk)
            finally:
                self.usage = answer.usage
        outbox.end(RecordKind.FINAL, Final(self.usage).pack())

    def abort(self, outbox: SealedOutbox, error: TokenPlaceError) -> None:
        """As `Task.abort`."""
        kind = error.type if isinstance(error, ApiError) else "server_error"
        abort = Abort(error.message[:LONGEST_ERROR], kind, error.code, self.usage)
        packed = abort.pack()
        if len(packed) > MAX_RECORD_DATA:  # an engine's oversized usage: an error here would end the whole node
            packed = replace(abort, usage=None).pack()
        outbox.end(RecordKind.ABORT, packed)


def _usage_of(answer: Answer) -> Usage:
    return answer.usage

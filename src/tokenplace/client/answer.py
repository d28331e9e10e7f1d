"""One question and its answer: choose, seal, send, open; try again while nothing was seen, go on where it broke.

    ask ──▶ choose a node ──▶ seal ──▶ submit ──▶ records ──▶ FINAL or ABORT
              ▲                         │  ▲  │
              │ nothing seen yet,       │  └──┘ the connection broke: resume at the next record,
              └─ at most twice ─────────┘       through any relay that has the node

Once a record was opened the request is never sent again: two runs of a model are two different answers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus

from tokenplace.client.door import Directory, Door, Records
from tokenplace.client.relays import Relays
from tokenplace.client.trust import Believed, Trust
from tokenplace.errors import (
    ApiError,
    ClockSkew,
    Draining,
    JobFailed,
    JobUnknown,
    KeyUnknown,
    NodeUnknown,
    NoNode,
    QueueFull,
    Refused,
    RelayUnreachable,
    StoreUnavailable,
    TokenPlaceError,
    TooLarge,
    Truncated,
    UntrustedCard,
    WireError,
)
from tokenplace.openai.calls import Abort, Call, Final, Head, Usage
from tokenplace.sealing.exchange import PendingAnswer, RecordOpener, seal_request
from tokenplace.sealing.keys import choose_key
from tokenplace.wire.ids import JobId, ModelId, NodeId
from tokenplace.wire.messages import ENGINE_FAILED, ENGINE_FULL, Outcome, Reason
from tokenplace.wire.stream import Record, RecordKind

RETRIES = 2
"""How often a request of which nothing was seen is sent to another node."""

LINGER = 5.0
"""Seconds a job outlives our connection, so that we can come back to it."""

NOBODY = "No node is connected to the relay right now; try again in a moment, or lend a machine: tokenplace node."

_RETURN = 20.0
"""Seconds in which we try to come back to a broken stream."""

_FOR_ANOTHER_NODE = frozenset(
    {
        Outcome.NODE_LOST,
        Outcome.NO_PROGRESS,
        Outcome.RELAY_STOPPED,
        Outcome.QUEUE_TIMEOUT,
        ENGINE_FAILED,
        ENGINE_FULL,
        "node_draining",
        "busy",
        "key_unknown",
        "clock_skew",
    }
)
"""Endings after which another node, or the same with a fresh card, may do better: the wrong clock may be the node's."""

_UNREAD = frozenset({Outcome.QUEUE_TIMEOUT, "busy", "node_draining", "key_unknown"})
"""Endings of a request of which its node has begun nothing, so that the same words may be sent to it again."""

_NOT_TWICE = frozenset({QueueFull.code, Outcome.QUEUE_TIMEOUT, ENGINE_FAILED, ENGINE_FULL})
"""Endings that the same node would only repeat: they are told as they are where nobody else is left to ask."""

_ELSEWHERE = frozenset({Outcome.RELAY_STOPPED, Outcome.NODE_LOST})
"""Endings at one relay that need not be the end: the node may hold the answer for us at another."""


class Phase(StrEnum):
    """What is going on, for a person who waits."""

    QUEUED = "queued"
    RUNNING = "running"
    RETURNING = "returning"
    RETRYING = "retrying"


@dataclass(frozen=True, slots=True)
class News:
    """A sign of life. `position` is the place in the node's queue, 1 is next, when that is known."""

    phase: Phase
    position: int | None = None


@dataclass(slots=True, eq=False)
class _Try:
    """One sealed request on its way."""

    door: Door
    node: Believed
    pending: PendingAnswer
    sealed: bytes
    opener: RecordOpener | None = None

    @property
    def next_record(self) -> int:
        return self.opener.next_number if self.opener is not None else 0

    @property
    def job(self) -> JobId:
        return self.pending.job

    @property
    def node_id(self) -> NodeId:
        return self.node.body.node


class _Lost(Exception):
    """This try is over without an answer; `error` says why, `again` whether another may do better."""

    def __init__(self, error: TokenPlaceError, *, again: bool) -> None:
        self.error = error
        self.again = again


@dataclass(slots=True, eq=False)
class Answer:
    """The answer to one call, as it comes. Made by `Client.ask`; leaving that block cancels what is not finished.

    `head` is there once the block is entered; `usage` at the end, also of an answer that broke off.
    """

    relays: Relays
    trust: Trust
    call: Call
    model: ModelId | None
    linger: float = LINGER
    on_news: Callable[[News], None] | None = None
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    clock: Callable[[], float] = time.monotonic
    only: NodeId | None = None
    """The one node that can answer, where no other will do."""
    head: Head = field(init=False)
    usage: Usage | None = field(init=False, default=None)
    _now: _Try | None = field(init=False, default=None)
    _ended: bool = field(init=False, default=False)
    _records: AsyncGenerator[tuple[RecordKind, bytes]] | None = field(init=False, default=None)

    @property
    def node(self) -> NodeId:
        """Who answers."""
        return self._try.node_id

    @property
    def standing(self) -> str:
        """How well we know who answers: pinned, known or new."""
        return self._try.node.standing.value

    @property
    def relay(self) -> str:
        """Through whom."""
        return self._try.door.name

    @property
    def _try(self) -> _Try:
        if self._now is None:
            raise RuntimeError("nobody was asked yet")
        return self._now

    async def begin(self) -> None:
        """Until the answer's head is here. Raises what `Client.ask` raises."""
        self._records = self._open_records()
        kind, data = await anext(self._records)
        if kind is RecordKind.ABORT:
            self._raise_abort(data)
        self.head = Head.parse(data)

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The body's bytes as they come.

        Raises JobFailed when the node is lost under the answer, ApiError when the node tells an error under the seal,
        SealError when something was altered on the way. Only a loop that ends without an error saw the whole answer.
        """
        if self._records is None:
            raise RuntimeError("the answer has not begun")
        async for kind, data in self._records:
            match kind:
                case RecordKind.DATA:
                    yield data
                case RecordKind.FINAL:
                    self.usage = Final.parse(data).usage
                case RecordKind.ABORT:
                    self._raise_abort(data)

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def close(self) -> None:
        """Let go. What is not finished is cancelled at the node."""
        if self._now is not None and not self._ended:
            self._ended = True
            await self._cancel(self._now)
        if self._records is not None:
            await self._records.aclose()

    def _raise_abort(self, data: bytes) -> None:
        abort = Abort.parse(data)
        self.usage = abort.usage
        raise ApiError(abort.message, status=HTTPStatus.BAD_GATEWAY, type=abort.type, code=abort.code)

    # -- the way ---------------------------------------------------------------------------------------------------

    async def _open_records(self) -> AsyncGenerator[tuple[RecordKind, bytes]]:
        """Opened records of one answer, from whichever try succeeds."""
        avoid: dict[NodeId, TokenPlaceError] = {}
        for tries_left in range(RETRIES, -1, -1):
            attempt = await self._another(avoid)
            self._now = attempt
            self.relays.chosen(attempt.node_id)
            try:
                async with aclosing(self._follow(attempt)) as records:
                    async for kind, data in records:
                        yield kind, data
                return
            except _Lost as lost:
                if attempt.next_record or not lost.again or not tries_left:
                    self._ended = True
                    raise lost.error from None
                avoid[attempt.node_id] = lost.error
                if lost.error.code == Outcome.RELAY_STOPPED:
                    self.relays.forget(attempt.door)
                self.relays.pass_over(attempt.door, attempt.node_id)
                self._news(Phase.RETRYING)

    async def _another(self, avoid: Mapping[NodeId, TokenPlaceError]) -> _Try:
        """As `_choose`. Where nobody is left, or only who has said already that he cannot, that is the error."""
        settled = [error for error in avoid.values() if error.code in _NOT_TWICE]
        try:
            attempt = await self._choose(avoid)
        except NoNode:
            if not settled:
                raise
        else:
            if avoid.get(attempt.node_id) not in settled:
                return attempt
        self._ended = True
        raise settled[-1]

    async def _choose(self, avoid: Mapping[NodeId, TokenPlaceError]) -> _Try:
        """A relay, a node and a checked card; a node that failed already only when there is no other.

        Of those, last the ones that would only fail again.
        """
        distrust: UntrustedCard | ClockSkew | None = None
        served: set[ModelId] = set()
        may_return = any(error.code not in _NOT_TWICE for error in avoid.values())
        deadline = self.clock() + (3.0 if may_return else 0.0)
        while True:
            second_best: dict[bool, _Try] = {}
            for door, directory in await self._known(avoid):
                served |= set(directory.models)
                for listing in directory.listings:
                    try:
                        believed = self.trust.check(listing.card)
                        attempt = self._seal(door, believed)
                    except (UntrustedCard, ClockSkew) as error:
                        distrust = error
                    except KeyUnknown:
                        self.relays.forget(door)
                    else:
                        said = avoid.get(listing.card.node)
                        if said is None:
                            return attempt
                        second_best.setdefault(said.code in _NOT_TWICE, attempt)
            if second_best:
                return second_best[min(second_best)]
            if self.clock() >= deadline:
                break
            await asyncio.sleep(0.2)  # the node we lost may be on its way back
        if distrust is not None:
            raise distrust
        if self.trust.selective:
            raise NoNode("None of the nodes you pinned or that are vouched for is connected to the relay right now.")
        raise NoNode(_nobody(self.model, served))

    async def _known(self, avoid: Mapping[NodeId, TokenPlaceError]) -> list[tuple[Door, Directory]]:
        if self.only is not None:
            return await self.relays.having(self.only)
        return await self.relays.directories(self.model, lambda node: node not in avoid and self.trust.admits(node))

    def _seal(self, door: Door, node: Believed) -> _Try:
        now_ms = self.wall_ms()
        sealed, pending = seal_request(self.call.pack(), choose_key(node.body.keys, now_ms=now_ms), now_ms=now_ms)
        return _Try(door, node, pending, sealed)

    async def _follow(self, attempt: _Try) -> AsyncGenerator[tuple[RecordKind, bytes]]:
        """Records of one try, coming back as often as it takes. Raises _Lost."""
        submitted = False
        broken_at: float | None = None
        pause = 0.05
        while True:
            seen = attempt.next_record
            asked = 0.0
            try:
                async with self._source(attempt, submitted) as records:
                    submitted = True
                    async for record in records:
                        opened = self._take(attempt, record)
                        if opened is not None:
                            yield opened
                            if self._ended:
                                return
                problem: TokenPlaceError = Truncated("The relay ended the stream before the answer's end.")
                patience = _RETURN
            except (RelayUnreachable, StoreUnavailable) as error:
                problem, patience = error, _RETURN
                self.relays.failed(attempt.door)
            except Draining as error:  # its node is there, and another relay may have it
                problem, patience = error, _RETURN if attempt.next_record else 0.0
                self.relays.failed(attempt.door)
            except (NodeUnknown, JobUnknown) as error:
                problem, patience = error, _RETURN / 4 if attempt.next_record else 0.0
                self.relays.forget(attempt.door)
            except Refused as error:
                if error.retry_after is None or not attempt.next_record:
                    raise _Lost(error, again=isinstance(error, QueueFull)) from None
                problem, patience, asked = error, _RETURN, error.retry_after
            except _Lost as lost:
                if not attempt.next_record or lost.error.code not in _ELSEWHERE or not self.relays.several:
                    raise
                problem, patience = lost.error, _RETURN / 4
                self.relays.failed(attempt.door)
            if not submitted:
                raise _Lost(problem, again=True)
            now = self.clock()
            if attempt.next_record > seen or broken_at is None:
                broken_at, pause = now, 0.05
            if now + asked - broken_at >= patience:
                raise _Lost(JobFailed(Outcome.NODE_LOST, problem.message), again=True)
            self._news(Phase.RETURNING)
            await asyncio.sleep(max(pause, asked))
            pause = min(1.5 * pause, 2.0)
            attempt.door = self._next_door(attempt.door)

    def _source(self, attempt: _Try, submitted: bool) -> AbstractAsyncContextManager[Records]:
        if not submitted:
            return attempt.door.submit(attempt.node_id, attempt.sealed, self.linger)
        return attempt.door.resume(attempt.node_id, attempt.job, attempt.next_record, self.linger)

    def _news(self, phase: Phase, position: int | None = None) -> None:
        if self.on_news is not None:
            self.on_news(News(phase, position))

    def _next_door(self, door: Door) -> Door:
        """The relay to try after this one: the same again while it works, else the next in order."""
        doors = self.relays.in_order()
        return doors[(doors.index(door) + 1) % len(doors)] if self.relays.troubled(door) else door

    def _take(self, attempt: _Try, record: Record) -> tuple[RecordKind, bytes] | None:
        """Open one record. Raises _Lost when the relay says that nothing more will come, SealError when it lies."""
        match record.kind:
            case RecordKind.NOTICE:
                self._tell(record.payload)
                return None
            case RecordKind.OUTCOME:
                raise self._lost(record.payload)
            case RecordKind.NONCE:
                if not attempt.next_record:
                    attempt.opener = attempt.pending.accept(record.payload)
                return None
        if attempt.opener is None:
            raise WireError("The answer begins without its nonce.")
        data = attempt.opener.open(record)
        if attempt.next_record == 1:
            self.trust.met(attempt.node.body)
            self.relays.answered(self.model, attempt.node_id)
        if attempt.opener.ended:
            self._ended = True
        return record.kind, data

    def _tell(self, payload: bytes) -> None:
        try:
            fields = json.loads(payload)
            state, position = fields.get("state"), fields.get("position")
        except (ValueError, AttributeError, RecursionError):
            return  # the relay's chatter is advice; what cannot be read is no advice
        phase = Phase.QUEUED if state == "queued" else Phase.RUNNING
        self._news(phase, position if isinstance(position, int) else None)

    def _lost(self, payload: bytes) -> _Lost:
        try:
            reason = Reason.parse(json.loads(payload))
        except (ValueError, AttributeError, RecursionError, WireError):
            reason = Reason(Outcome.NODE_LOST)
        again = _FOR_ANOTHER_NODE if self.only is None else _UNREAD
        return _Lost(JobFailed(reason.code, reason.message), again=reason.code in again)

    async def _cancel(self, attempt: _Try) -> None:
        """Tell the relay that nobody wants the rest; if it cannot be told, the linger runs out instead."""
        try:
            async with asyncio.timeout(2.0):
                await attempt.door.cancel(attempt.node_id, attempt.job)
        except (TimeoutError, RelayUnreachable, Refused, TooLarge):
            return


def _nobody(model: ModelId | None, served: set[ModelId]) -> str:
    if not served:
        return NOBODY
    names = ", ".join(sorted(served)[:20])
    return f"No node serves {model!r} right now. Served now: {names}."

"""The client's side of a ticket: waits for what comes, and gives a sign of life when nothing does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from tokenplace.relay.counts import Counts
from tokenplace.relay.jobs import Step
from tokenplace.relay.tickets import INTERRUPTED, Ticket
from tokenplace.wire.frames import pack_control
from tokenplace.wire.limits import Timing
from tokenplace.wire.messages import Outcome, Reason
from tokenplace.wire.stream import Record, RecordKind

_QUEUE_NEWS = 2.0
"""A waiting client hears within so many seconds that its place in the queue is another."""

_WORDLESS_ENDS = frozenset({Outcome.DONE, Outcome.ABORTED, INTERRUPTED})
"""Where the seal says how it ended, or where the client shall come back as after a broken connection."""


class Holder(Protocol):
    """What serves a ticket: this relay's broker, or the way to another replica's."""

    @property
    def timing(self) -> Timing:
        """The clock's part."""

    @property
    def counts(self) -> Counts:
        """What the metrics show."""

    def taken(self, ticket: Ticket, size: int, now: float) -> None:
        """The client's socket took `size` bytes of what it was given."""

    def leave(self, ticket: Ticket, now: float) -> None:
        """The client's connection is gone."""

    def position(self, ticket: Ticket) -> int:
        """How many wait before this ticket, and itself; 0 when it does not wait."""


class Delivery:
    """Holds a ticket for one connection. `next` until it gives nothing; then `leave`."""

    def __init__(
        self,
        broker: Holder,
        ticket: Ticket,
        clock: Callable[[], float],
        abort: Callable[[], None] | None = None,
    ) -> None:
        self._broker = broker
        self._ticket = ticket
        self._clock = clock
        self._told_place = 0
        self._told_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._hung_up = False
        self._over = False
        self._given = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sign_again = broker.timing.sign_of_life_again
        self._sign_due = clock() + (0.0 if ticket.job.step is Step.QUEUED else broker.timing.sign_of_life)
        self._abort = abort
        self._write: Callable[[bytes], bool] | None = None
        self._wake = self._woken
        self._fresh = ticket.fresh
        """Whether this connection saw the job from its beginning, so that its waiting tells something."""
        self._first = self._fresh
        ticket.wake = self._wake

    @property
    def _holds(self) -> bool:
        return self._ticket.wake is self._wake

    def _stir(self) -> None:
        """Let `next` look again. A bare future: an Event costs twice as much on the way of every piece."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def write_with(self, write: Callable[[bytes], bool] | None) -> None:
        """From now on pieces may go out by `write` the moment they arrive, as long as it takes them.

        A reader that keeps up then costs no turn of the loop: half of what forwarding a piece takes. Whatever `write`
        does not take, and everything that is not a piece, comes out of `next`.
        """
        self._write = write
        if self._holds:
            self._ticket.hand = self._hand if write is not None else None

    def _woken(self) -> None:
        self._stir()
        ended = self._ticket.ended
        if ended is not None and ended.code == Outcome.CLIENT_STALLED and self._abort is not None:
            self._abort()  # the socket is full and will stay so: nothing could be told on it

    def _hand(self, piece: bytes, now: float) -> bool:
        """Write what has just arrived, if `next` waits for it and nothing else."""
        waiter, write, ticket = self._waiter, self._write, self._ticket
        if waiter is None or waiter.done() or write is None or ticket.wake is not self._wake or not write(piece):
            return False
        self._went(now)
        self._broker.taken(ticket, len(piece), now)
        return True

    def _went(self, now: float) -> None:
        """Something of the node's goes out."""
        if self._first:
            self._first = False
            self._broker.counts.waits.first_piece.add(now - self._ticket.created)
        self._sign_due = now + self._sign_again

    def hang_up(self) -> None:
        """The client's connection is gone; `next` returns."""
        self._hung_up = True
        self._stir()

    def leave(self) -> None:
        """Let go of the ticket. An unfinished job lingers or is cancelled, as the client chose."""
        if self._timer is not None:
            self._timer.cancel()
        if self._fresh:
            self._count()
        if self._holds:
            self._broker.leave(self._ticket, self._clock())

    async def next(self) -> bytes:
        """The next bytes for the client: records of the node, or the relay's own; empty at the end.

        Calling it again says that the bytes before were taken by the client's socket.
        """
        ticket = self._ticket
        if self._given:
            self._broker.taken(ticket, self._given, self._clock())
            self._given = 0
        while not (self._hung_up or self._over):
            if not self._holds:
                self._over = True
                return _told(Reason(Outcome.MOVED, "The client goes on over another connection."))
            data = ticket.take()
            now = self._clock()
            if data:
                self._went(now)
                self._given = len(data)
                return data
            if ticket.ended is not None:
                self._over = True
                return b"" if ticket.ended.code in _WORDLESS_ENDS else _told(ticket.ended)
            if now >= self._sign_due:
                return self._notice(now)
            if self._timer is None:
                self._timer = self._loop.call_later(self._sign_due - now, self._look)
            self._waiter = self._loop.create_future()
            await self._waiter
        return b""

    def _count(self) -> None:
        """How long it took, once."""
        self._fresh = False
        waits, ticket = self._broker.counts.waits, self._ticket
        if ticket.begun:
            waits.queue.add(ticket.begun - ticket.created)
        waits.job.add(self._clock() - ticket.created)

    def _look(self) -> None:
        """Time for a sign of life, unless something was sent meanwhile: one timer serves many pieces."""
        self._timer = None
        now = self._clock()
        if now >= self._sign_due and self._waits_as_told(now):
            self._sign_due = now + _QUEUE_NEWS
        rest = self._sign_due - now
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._look)
        else:
            self._stir()

    def _waits_as_told(self, now: float) -> bool:
        """Whether the client knows its place and needs no sign of life yet.

        Said again every two seconds to ten thousand waiting clients, the same word took half a core.
        """
        ticket = self._ticket
        return (
            ticket.job.step is Step.QUEUED
            and now + _QUEUE_NEWS <= self._told_at + self._broker.timing.sign_of_life_again
            and ticket.ended is None
            and self._holds
            and self._broker.position(ticket) == self._told_place
        )

    def _notice(self, now: float) -> bytes:
        ticket = self._ticket
        fields: dict[str, object] = {"state": ticket.job.step.value}
        self._sign_due = now + self._broker.timing.sign_of_life_again
        if ticket.job.step is Step.QUEUED:
            self._sign_due = now + min(_QUEUE_NEWS, self._broker.timing.sign_of_life)
            fields["position"] = self._told_place = self._broker.position(ticket)
            self._told_at = now
        return Record(RecordKind.NOTICE, pack_control(fields)).pack()


def _told(reason: Reason) -> bytes:
    return Record(RecordKind.OUTCOME, pack_control(reason.fields())).pack()

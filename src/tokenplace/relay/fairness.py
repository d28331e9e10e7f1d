"""Whose turn it is: the queue of one node, fair between clients. Pure.

Start-time fair queueing (Goyal, Vin, Cheng 1996): each client's requests follow each other on a clock of bytes, and
the request whose turn begins first is next. A client that asks a hundredfold waits behind itself; who has asked for
little stands near the head whatever waits. The clock moves on with what is served, divided among those who wait, so
that newcomers without end do not keep anybody from a second turn. Memory is shared by dynamic thresholds (Choudhury and
Hahne 1998): a client may hold three times what is left, so that one flood never takes the last place.

A turn is not enough while every slot is busy with one client's long answers. So while others have asked lately, the
last free slot of a node is kept for a client that holds none.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from tokenplace.wire.ids import JobId

if TYPE_CHECKING:
    from tokenplace.relay.tickets import Ticket

LEAST_COST = 4096
"""Bytes that even a short request counts: an answer is work whatever the question's length."""

LATELY = 30.0
"""Seconds for which a client that asked is expected again, and a slot kept for it."""

_THRESHOLD = 3
_OVER = 64
_REMEMBERED = 1024


def within_share(held: int, size: int, all_held: int, limit: int) -> bool:
    """Whether a client that holds `held` of the `all_held` in use may take `size` more, where `limit` is in all."""
    left = limit - all_held
    return size <= left and held + size <= max(size, _THRESHOLD * left)


class FairQueue:
    """The tickets that wait for one node. Its length is bounded, so looking at every client's head is too."""

    def __init__(self) -> None:
        self._lines: dict[str, OrderedDict[JobId, Ticket]] = {}
        self._where: dict[JobId, str] = {}
        self._clock = 0
        self._served: dict[str, int] = {}
        """Where on the clock each client's last request ends; those in the past are dropped when they pile up."""

    def __len__(self) -> int:
        return len(self._where)

    def __iter__(self) -> Iterator[Ticket]:
        """In no order that means anything."""
        for line in self._lines.values():
            yield from line.values()

    def __contains__(self, job: JobId) -> bool:
        return job in self._where

    def held_by(self, client: str) -> int:
        """How many requests of a client wait."""
        return len(self._lines.get(client, ()))

    def push(self, ticket: Ticket) -> None:
        """Take a place behind what the same client asked before."""
        ticket.turn = max(self._clock, self._served.get(ticket.client, 0))
        self._served[ticket.client] = ticket.turn + _cost(ticket)
        self._lines.setdefault(ticket.client, OrderedDict())[ticket.job.id] = ticket
        self._where[ticket.job.id] = ticket.client

    def give_back(self, ticket: Ticket) -> None:
        """It had its turn, but the node was busy: it is its client's next again, at the turn it had."""
        line = self._lines.setdefault(ticket.client, OrderedDict())
        ticket.turn = min(ticket.turn, self._clock)  # the clock may have begun anew meanwhile
        if line:
            ticket.turn = min(ticket.turn, next(iter(line.values())).turn - 1)
        line[ticket.job.id] = ticket
        line.move_to_end(ticket.job.id, last=False)
        self._where[ticket.job.id] = ticket.client

    def next(self, barred: Collection[str] = ()) -> Ticket | None:
        """Take out whose turn it is, among the clients that are not barred."""
        client = min(
            (client for client in self._lines if client not in barred),
            key=lambda client: next(iter(self._lines[client].values())).turn,
            default=None,
        )
        if client is None:
            return None
        ticket = next(iter(self._lines[client].values()))
        self._clock = max(self._clock, ticket.turn) + _cost(ticket) // len(self._lines)
        self.discard(ticket.job.id)
        if len(self._served) > 2 * len(self._lines) + _OVER:
            self._served = {client: end for client, end in self._served.items() if end > self._clock}
        return ticket

    def discard(self, job: JobId) -> None:
        """It does not wait any more."""
        client = self._where.pop(job, None)
        if client is None:
            return
        line = self._lines[client]
        del line[job]
        if not line:
            del self._lines[client]
        if not self._where:
            self._served.clear()
            self._clock = 0

    def position(self, job: JobId) -> int:
        """How many are served before it, and itself: 1 is next. 0 when it does not wait."""
        if job not in self._where:
            return 0
        mine = self._where[job]
        turn = self._lines[mine][job].turn
        before, ahead = 1, True
        for client, line in self._lines.items():  # of equal turns the line that stands first is served first
            if client == mine:
                before += list(line).index(job)
                ahead = False
            else:
                before += sum(ticket.turn < turn + ahead for ticket in line.values())
        return before

    def clear(self) -> None:
        """Nobody waits any more."""
        for line in (self._lines, self._where, self._served):
            line.clear()
        self._clock = 0


def _cost(ticket: Ticket) -> int:
    """What a request weighs."""
    return max(LEAST_COST, len(ticket.sealed or b""))


class Visitors:
    """Who has asked for one node lately."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, float] = OrderedDict()

    def came(self, client: str, now: float) -> None:
        """A client asked."""
        self._seen[client] = now
        self._seen.move_to_end(client)
        self._forget(now)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def others(self, holders: Collection[str], now: float) -> bool:
        """Whether a client that holds none of the slots may come again soon."""
        self._forget(now)
        return any(client not in holders for client in self._seen)

    def _forget(self, now: float) -> None:
        while self._seen and now - next(iter(self._seen.values())) > LATELY:
            self._seen.popitem(last=False)


class Shares:
    """Bytes that clients hold of one bounded memory."""

    def __init__(self, limit: int) -> None:
        self.held = 0
        self._limit = limit
        self._by_client: Counter[str] = Counter()

    def take(self, client: str, size: int) -> bool:
        """Take memory, if there is some for this client."""
        if not within_share(self._by_client[client], size, self.held, self._limit):
            return False
        self.held += size
        self._by_client[client] += size
        return True

    def give(self, client: str, size: int) -> None:
        """Give memory back."""
        self.held -= size
        self._by_client[client] -= size
        if self._by_client[client] <= 0:
            del self._by_client[client]

"""When to look at which ticket again. Pure.

A ticket is looked at when it would be due, and sooner where its deadline may move closer meanwhile. Nothing is taken
out when a deadline moves: an entry that was overtaken is passed over, and what has piled up is thrown out at times.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from math import inf

from tokenplace.relay.tickets import Ticket

_PILED_UP = 256
"""Entries beyond two for each ticket: a busy relay ends thousands of tickets in the half minute until they would be
due, each with all that was ever attached to it."""


class Deadlines:
    """All tickets, by the time they are to be looked at."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Ticket]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    def watch(self, ticket: Ticket, when: float) -> None:
        """Look at it then, unless it is to be looked at sooner already."""
        if when < ticket.watched:
            ticket.watched = when
            heapq.heappush(self._entries, (when, next(self._order), ticket))

    def due(self, now: float) -> Iterator[Ticket]:
        """The tickets to look at now. Whoever is not ended is to be watched again."""
        while self._entries and self._entries[0][0] <= now:
            when, _, ticket = heapq.heappop(self._entries)
            if when == ticket.watched:
                ticket.watched = inf
                if not ticket.job.ended:
                    yield ticket

    def tidy(self, tickets: int) -> None:
        """Throw out what is over, when it has piled up beside so many tickets."""
        if len(self._entries) > 2 * tickets + _PILED_UP:
            self._entries = [each for each in self._entries if each[0] == each[2].watched and not each[2].job.ended]
            heapq.heapify(self._entries)

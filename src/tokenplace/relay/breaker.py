"""Whether a node is to be trusted with work again after it failed. Pure.

    closed ──3 failures in a row──▶ open ──after a pause──▶ half-open ──success──▶ closed
                                     ▲                          │
                                     └──failure, a longer pause─┘

Only failures that nobody but the node can cause are counted: it vanished with work in its hands, it made no progress,
it broke the rules of the link, or it says itself that its engine failed. What a client could cause (a request that does
not open) would let a stranger switch nodes off. Jobs that were under way when something was counted already failed of
the same thing: one crash under many answers is one failure.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf

FAILURES = 3
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
"""Seconds a node rests; twice as long after every failed trial."""


class Circuit(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """One node's failures in a row."""

    __slots__ = ("_counted_at", "_failures", "_pause", "state", "trial", "until")

    def __init__(self) -> None:
        self.state = Circuit.CLOSED
        self.until = 0.0
        """When an open breaker lets one request try."""
        self.trial = False
        """Whether a request tries a half-open one now."""
        self._failures = 0
        self._counted_at = -inf
        self._pause = FIRST_PAUSE

    @property
    def spotless(self) -> bool:
        """Whether there is nothing to remember."""
        return self.state is Circuit.CLOSED and not self._failures

    @property
    def lets_in(self) -> bool:
        """Whether a request should be sent its way: one at a time while it is half open."""
        return self.state is Circuit.CLOSED or (self.state is Circuit.HALF_OPEN and not self.trial)

    def tried(self) -> None:
        """A request is on its way to the node."""
        self.trial = self.state is Circuit.HALF_OPEN

    def told_nothing(self) -> None:
        """The trial ended in something that says nothing of the node: another may try."""
        self.trial = False

    def failed(self, now: float, begun: float | None = None) -> bool:
        """A failure, of a job that was `begun` then; whether the breaker opened now."""
        self.trial = False
        if begun is not None and begun < self._counted_at:
            return False
        self._failures += 1
        self._counted_at = now
        if self.state is Circuit.OPEN or (self.state is Circuit.CLOSED and self._failures < FAILURES):
            return False
        if self.state is Circuit.HALF_OPEN:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.state = Circuit.OPEN
        self.until = now + self._pause
        return True

    def succeeded(self) -> bool:
        """An answer; whether the breaker closed now."""
        closed = self.state is not Circuit.CLOSED
        self.state = Circuit.CLOSED
        self.trial = False
        self._failures = 0
        self._pause = FIRST_PAUSE
        return closed

    def look(self, now: float) -> bool:
        """Whether the pause is over now, so that one request may try."""
        if self.state is Circuit.OPEN and now >= self.until:
            self.state = Circuit.HALF_OPEN
            return True
        return False

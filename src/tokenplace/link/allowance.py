"""So much at once, so much a second on average (a token bucket). Pure: handed the time."""

from __future__ import annotations


class Allowance:
    """`left` says whether, `spend` that it happened."""

    __slots__ = ("_left", "_most", "_per_second", "_seen")

    def __init__(self, at_once: float, per_second: float) -> None:
        self._most = self._left = at_once
        self._per_second = per_second
        self._seen = 0.0

    def left(self, now: float) -> float:
        """How much may be spent now."""
        return min(self._most, self._left + (now - self._seen) * self._per_second)

    def spend(self, now: float, amount: float = 1.0) -> None:
        """So much less; never less than nothing."""
        self._left = max(0.0, self.left(now) - amount)
        self._seen = now

"""How long things took, in buckets: what Prometheus calls a histogram, cheap enough for every request."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds, from a refusal to a long answer."""


@dataclass(slots=True)
class Histogram:
    """Counts of durations; it only grows."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """One more; a clock that went back counts as no time."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += max(0.0, seconds)

    def cumulative(self) -> list[tuple[str, float]]:
        """As Prometheus wants it: how many took at most so long, up to `+Inf`."""
        rows: list[tuple[str, float]] = []
        so_far = 0
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], self.counts, strict=True):
            so_far += count
            rows.append((bound, so_far))
        return rows


@dataclass(slots=True)
class Waits:
    """How long the clients of one relay waited."""

    queue: Histogram = field(default_factory=Histogram)
    """From the request's arrival until a node was given it."""
    first_piece: Histogram = field(default_factory=Histogram)
    """From the request's arrival until the first sealed record was on its way to the client."""
    job: Histogram = field(default_factory=Histogram)
    """From the request's arrival until the client's connection let go of it."""

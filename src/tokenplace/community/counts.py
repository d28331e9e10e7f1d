"""What happens on the notice board, as counts for /metrics: never whose, never which words."""

from __future__ import annotations

from collections import Counter


class Counts:
    """Counters that only grow; labels are routes and outcomes of closed sets."""

    def __init__(self) -> None:
        self._posts: Counter[tuple[str, str]] = Counter()

    def add(self, kind: str, outcome: str) -> None:
        """One rating or offer ended."""
        self._posts[kind, outcome] += 1

    def render(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        lines = [
            "# HELP tokenplace_community_posts_total Ratings and offers of machines, by outcome",
            "# TYPE tokenplace_community_posts_total counter",
        ]
        lines += [
            f'tokenplace_community_posts_total{{kind="{kind}",outcome="{outcome}"}} {number}'
            for (kind, outcome), number in sorted(self._posts.items())
        ]
        return ("\n".join(lines) + "\n").encode()

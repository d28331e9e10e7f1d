"""What passes a gateway, as counts for /metrics: answers and tokens, never whose or which."""

from __future__ import annotations

from collections import Counter

from tokenplace.openai.calls import Usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_KINDS = ("prompt", "completion")


class Counts:
    """Counters that only grow."""

    def __init__(self) -> None:
        self._answers: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    def add(self, outcome: str, usage: Usage | None) -> None:
        """One answer ended as `done`, `failed` or `left`; `usage` is what the node told under the seal, if it could."""
        self._answers[outcome] += 1
        for kind in _KINDS:
            tokens = (usage or {}).get(f"{kind}_tokens")
            if isinstance(tokens, int) and tokens > 0:
                self._tokens[kind] += tokens

    def render(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        lines = [
            "# HELP tokenplace_gateway_answers_total Answers ended, by outcome",
            "# TYPE tokenplace_gateway_answers_total counter",
            *(f'tokenplace_gateway_answers_total{{outcome="{name}"}} {n}' for name, n in sorted(self._answers.items())),
            "# HELP tokenplace_gateway_tokens_total Tokens that nodes counted, by kind",
            "# TYPE tokenplace_gateway_tokens_total counter",
            *(f'tokenplace_gateway_tokens_total{{kind="{kind}"}} {self._tokens[kind]}' for kind in _KINDS),
        ]
        return ("\n".join(lines) + "\n").encode()

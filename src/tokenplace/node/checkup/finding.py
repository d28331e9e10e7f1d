"""What came of one look."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it stands."""

    OK = "ok"
    HINT = "hint"
    """It works; it could work better."""
    BAD = "bad"
    """A node cannot serve like this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it stands, what was seen, and what to do where it is not ok."""

    name: str
    verdict: Verdict
    seen: str
    todo: str = ""

    def fields(self) -> dict[str, str]:
        """For JSON."""
        return {**asdict(self), "verdict": self.verdict.value}


def ok(name: str, seen: str) -> Finding:
    """All is well."""
    return Finding(name, Verdict.OK, seen)


def hint(name: str, seen: str, todo: str) -> Finding:
    """It works, and could work better."""
    return Finding(name, Verdict.HINT, seen, todo)


def bad(name: str, seen: str, todo: str) -> Finding:
    """A node cannot serve like this."""
    return Finding(name, Verdict.BAD, seen, todo)

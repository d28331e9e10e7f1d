"""Every setting that a program of ours reads, as a list that no program has to be imported for.

`variables.json` is written from the settings classes by `python tests/docs/generate.py`; a test compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

PROGRAMS = ("relay", "node", "gateway", "client", "community")
"""What has settings; `client` is whatever asks, `community` the notice board that a relay shows."""

PREFIXES = ("TOKEN_PLACE_", "TOKENPLACE_")
"""Names that are ours alone: one of these that nobody reads is a slip of the pen."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of one program: its environment variable, its key in a configuration file, its default as text."""

    variable: str
    program: str
    field: str
    secret: bool
    default: str

    @property
    def key(self) -> str:
        """How a configuration file names it: `relay.port`."""
        return f"{self.program}.{self.field}"


@cache
def every_setting() -> tuple[Setting, ...]:
    """All of them, program by program."""
    rows = json.loads((files(__package__) / "variables.json").read_text(encoding="utf-8"))
    return tuple(Setting(**row) for row in rows)


def settings_of(programs: Iterable[str]) -> tuple[Setting, ...]:
    """The settings of some programs, those of the first program first."""
    return tuple(setting for program in programs for setting in every_setting() if setting.program == program)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant; what all our names have in common does not count."""
    cores = {_core(each): each for each in sorted(known)}
    found: Sequence[str] = get_close_matches(_core(word), cores, 1, 0.75)
    return cores[found[0]] if found else None


def _core(word: str) -> str:
    for prefix in PREFIXES:
        word = word.removeprefix(prefix)
    return word


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean X?`, or nothing."""
    meant = closest(word, known)
    return f" Did you mean {meant}?" if meant else ""

"""How large a JSON schema may be. An engine makes a grammar of it, and tries every way on with each token.

A thousand ways take a third of a second for one token, on a machine that other people's answers share; a repetition of
optional repetitions multiplies its ways. The counts are OpenAI's own for structured outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator

from tokenplace.openai import refusals
from tokenplace.openai.refusals import Refusal

DATA = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose values are data, not schemas: a "$ref" in them is only a word."""

MAX_WAYS = 1000
"""Values of `enum`, branches, and properties, altogether."""

MAX_WORDS = 120_000
"""Characters of their names and values."""

MAX_PATTERN = 1000
"""Characters of a pattern, and how often repetitions within each other repeat."""

_BRANCHES = ("enum", "anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_REPEATS = re.compile(r"\{(\d{0,6})(,?)(\d{0,6})\}|[*+?]")
_OPTIONAL = 10
"""What it counts more to repeat something of which parts may be left out: there are many ways to the same text."""

_UNBOUNDED = 8
"""What a repetition without an upper bound counts."""


def check(schemas: Iterable[object], times: int = 1) -> str | None:
    """Why these schemas, which together may have so many times what one may, are too much; None when they are not."""
    ways = words = 0
    waiting = list(schemas)
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, str):
            words += len(node)
        elif isinstance(node, dict):
            ways += sum(len(node[name]) for name in (*_BRANCHES, *_NAMED) if isinstance(node.get(name), list | dict))
            words += sum(map(len, node))
            waiting += node.values()
            if isinstance(pattern := node.get("pattern"), str) and _repeated(pattern) > MAX_PATTERN:
                return f"A pattern has at most {MAX_PATTERN} characters, and repeats no more often."
        if ways > MAX_WAYS * times:
            return f"All its enums, branches and properties together may have {MAX_WAYS * times} entries."
        if words > MAX_WORDS * times:
            return f"All its words together may have {MAX_WORDS * times} characters."
    return None


def _repeated(pattern: str) -> int:
    """The greatest product of repetitions within each other; the pattern's length if that is more."""
    if len(pattern) > MAX_PATTERN:
        return len(pattern)
    depth: list[int] = [1]  # of each open group, what its repetitions come to
    optional: list[bool] = [False]  # … and whether it has some that may be left out
    inner_optional = False
    most, last, place = 1, 1, 0
    while place < len(pattern):
        mark = pattern[place]
        found = _REPEATS.match(pattern, place)
        if found is not None:
            last *= _times(found) * (_OPTIONAL if inner_optional and found[0] != "?" else 1)
            depth[-1] = max(depth[-1], last)
            optional[-1] = optional[-1] or found[0][0] in "*?" or found[1] in ("", "0")
            most = max(most, last)
            place = found.end()
            continue
        last, inner_optional = 1, False
        if mark == "\\":
            place += 1
        elif mark == "[":
            place = _class_end(pattern, place)
        elif mark == "(":
            depth.append(1)
            optional.append(False)
        elif mark == ")" and len(depth) > 1:
            last, inner_optional = depth.pop(), optional.pop()
            depth[-1] = max(depth[-1], last)
            optional[-1] = optional[-1] or inner_optional
        place += 1
    return most


def _times(found: re.Match[str]) -> int:
    if found[0] == "?":
        return 1
    if found[0] in "*+" or (found[2] and not found[3]):
        return _UNBOUNDED
    return max(1, int(found[3] or found[1] or 1))


def _class_end(pattern: str, place: int) -> int:
    place += 1
    while place < len(pattern) and pattern[place] != "]":
        place += 1 + (pattern[place] == "\\")
    return place


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    if (why := check([schema])) is not None:
        raise Refusal(refusals.invalid, f"This JSON schema is too large. {why}")
    return schema


JsonSchema = Annotated[dict[str, Any], AfterValidator(_bounded)]
"""A schema that a node can follow without holding others up."""

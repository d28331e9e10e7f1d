"""Long enums put so that llama.cpp follows them quickly: the same values in other words. Pure.

Its grammar keeps every value that still fits open, token after token, so what costs is a beginning that many share:
with a thousand times "item number N" a token of a small model takes many times as long. A pattern that says a shared
beginning once, and an equal ending once, leaves few ways open. For numbers without gaps a range does.

The pattern is of the characters between the quotes as JSON writes them, which is how llama.cpp takes one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from tokenplace.openai.schemas import DATA

LONG = 50
"""Values up to which an enum stays as it is."""

DEEPEST = 48
"""Forks within each other up to which there is a pattern: the runtime reads it by recursion."""

_BESIDE = frozenset({"type", "enum", "title", "description", "default", "examples", "deprecated", "$comment"})
"""Keywords that may stand beside an enum without having a say in its values."""

_SIGNS = frozenset("\\^$.[](){}|*+?")
"""What a pattern takes for more than itself. Nothing else may be escaped: the runtime knows no other escapes."""


def lighter(schema: Any) -> Any:
    """The schema with its long enums as patterns and ranges; it takes the same values."""
    if isinstance(schema, list):
        return [lighter(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("enum"), list):
        return _of_enum(schema)
    return {key: value if key in DATA else lighter(value) for key, value in schema.items()}


def _of_enum(schema: dict[str, Any]) -> dict[str, Any]:
    values = schema["enum"]
    if not schema.keys() <= _BESIDE or len(values) <= LONG:
        return schema
    others = {key: value for key, value in schema.items() if key not in ("type", "enum")}
    if all(isinstance(value, str) for value in values) and _may_be(schema, "string"):
        pattern = pattern_of(values)
        return schema if pattern is None else {**others, "type": "string", "pattern": pattern}
    if all(type(value) is int for value in values) and _may_be(schema, "integer", "number"):
        least, most = min(values), max(values)
        if least >= 0 and most - least + 1 == len(set(values)):  # below 0 a range would also let -0 pass
            return {**others, "type": "integer", "minimum": least, "maximum": most}
    return schema


def _may_be(schema: Mapping[str, Any], *kinds: str) -> bool:
    told = schema.get("type", kinds[0])
    return any(kind in kinds for kind in (told if isinstance(told, list) else [told]))


def pattern_of(values: Collection[str]) -> str | None:
    """The anchored pattern of just these values, as JSON writes them between its quotes; None where it is too deep."""
    written = sorted({json.dumps(value, ensure_ascii=False)[1:-1] for value in values})
    try:
        return f"^{_rest(written, 0, 0)}$"
    except _TooDeepError:
        return None


class _TooDeepError(Exception):
    pass


def _rest(values: Sequence[str], at: int, depth: int) -> str:
    """What may follow in these sorted values, which are equal up to `at`."""
    if depth > DEEPEST:
        raise _TooDeepError
    start, first, last = at, values[0], values[-1]
    while at < len(first) and first[at] == last[at]:  # of sorted values the others lie between
        at += 1
    may_end = len(first) == at
    heads: dict[str, list[str]] = {}
    for head, group in groupby(values[may_end:], lambda value: value[at]):
        heads.setdefault(_rest(list(group), at + 1, depth + 1), []).append(head)
    ways = [_one_of(characters) + rest for rest, characters in heads.items()]
    fork = f"({'|'.join(ways)}){'?' if may_end else ''}" if ways else ""
    return "".join(map(_literal, first[start:at])) + fork


def _one_of(characters: list[str]) -> str:
    """One of these characters: letters and digits as a class."""
    plain = "".join(each for each in characters if each.isascii() and each.isalnum())
    ways = [f"[{plain}]"] if len(plain) > 1 else list(plain)
    ways += [_literal(each) for each in characters if not (each.isascii() and each.isalnum())]
    return ways[0] if len(ways) == 1 else f"({'|'.join(ways)})"


def _literal(character: str) -> str:
    return f"\\{character}" if character in _SIGNS else character

"""JSON as it comes from strangers, and as we write it.

A request's JSON is read once, strictly: what two readers could understand differently (a key twice, NaN, half a
surrogate pair) is refused, so that no check is passed by one meaning while the engine hears another.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from tokenplace.errors import ApiError

MAX_DEPTH = 64
"""Lists and objects within each other; OpenAI allows ten levels in a schema, parsers in C give up near a thousand."""

MAX_NODES = 100_000
"""Lists and objects altogether: eight megabytes of `[],` would keep the node busy for seconds."""

MAX_BRACKETS = 1_000_000
"""… and brackets, which are quicker to count; long texts have some of their own."""

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}")

_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def write(value: object) -> bytes:
    """Compact UTF-8 JSON."""
    return _compact(value).encode()


def write_text(value: object) -> str:
    """Compact JSON as text, for JSON inside JSON (a tool call's arguments)."""
    return _compact(value)


def read_object(body: bytes) -> dict[str, Any]:
    """Read a request's body. Raises ApiError (400) saying what is wrong with it."""
    if not body.strip():
        raise _unreadable("The request has no body; send a JSON object.")
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise _too_many()
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_float=_number, parse_constant=_not_a_number)
    except UnicodeDecodeError as error:
        raise _unreadable(f"The request's body is not UTF-8 (at byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise _unreadable(
            f"The request's body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # an integer of thousands of digits
        raise _unreadable(f"The request's body has a number nobody can use: {error}.") from None
    if not isinstance(value, dict):
        raise _unreadable(f"The request's body must be a JSON object, not {kind_of(value)}.")
    _check_shape(value)
    if _SURROGATE_ESCAPE.search(body):
        _check_surrogates(value)
    return value


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    type(None): "null",
}


def kind_of(value: object) -> str:
    """What JSON calls this value, with its article."""
    return _KINDS.get(type(value), type(value).__name__)


def _unreadable(message: str) -> ApiError:
    return ApiError(message, code="invalid_json")


def _too_deep() -> ApiError:
    return ApiError(f"The request's JSON is nested deeper than {MAX_DEPTH} levels.", code="json_too_deep")


def _too_many() -> ApiError:
    return ApiError(f"The request's JSON has more than {MAX_NODES} lists and objects.", code="json_too_large")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ApiError(
                    f"The request's JSON has the key {key[:64]!r} twice in one object; which is meant?",
                    code="duplicate_key",
                )
            seen.add(key)
    return read


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _unreadable(f"The request's body has a number nobody can use: {text[:64]}.")
    return number


def _not_a_number(text: str) -> NoReturn:
    raise _unreadable(f"The request's body is not JSON: it has no {text}.")


def _check_shape(value: object) -> None:
    """Level by level, since a request may be deeper than Python's stack."""
    level = [value]
    nodes = 1
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for node in level:
            children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
            below += [child for child in children if isinstance(child, dict | list)]
        if not below:
            return
        nodes += len(below)
        if nodes > MAX_NODES:
            raise _too_many()
        level = below
    raise _too_deep()


def _check_surrogates(value: object) -> None:
    """Pairs have become characters by now; what is left over are halves, which no UTF-8 can carry."""
    try:
        write(value)
    except UnicodeEncodeError:
        raise _unreadable("The request's body has half of a surrogate pair (\\ud800-\\udfff) in a string.") from None

"""Reads what strangers send to the notice board, field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenplace.community.faults import bad

MAX_BODY = 16 * 1024
"""Bytes of one submission; the longest that its fields allow fits four times."""

Fields = Mapping[str, Any]


def read_object(body: bytes) -> Fields:
    """A JSON object. Raises ApiError (400)."""
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        raise bad("The request's body is not JSON.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise bad("The request's body must be a JSON object.", code="invalid_json")
    return value


def text(fields: Fields, name: str, most: int, *, param: str | None = None) -> str:
    """A text that says something, trimmed, of at most `most` characters. Raises ApiError (400)."""
    said = optional_text(fields, name, most, param=param)
    if said:
        return said
    param = param or name
    if fields.get(name) is None:
        raise bad(f"`{param}` is missing.", param, "missing_required_parameter")
    raise bad(f"`{param}` must say something.", param, "empty_string")


def optional_text(fields: Fields, name: str, most: int, *, param: str | None = None) -> str:
    """A text, trimmed; empty where there is none. Raises ApiError (400)."""
    value, param = fields.get(name), param or name
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad(f"`{param}` must be a text.", param, "invalid_type")
    said = value.strip()
    if len(said) > most:
        raise bad(f"`{param}` may have {most} characters; this has {len(said)}.", param, "string_above_max_length")
    if not is_utf8(said):
        raise bad(f"`{param}` has half of a surrogate pair in it.", param, "invalid_value")
    return said


def is_utf8(said: str) -> bool:
    """Whether it can be written down at all."""
    try:
        said.encode()
    except UnicodeEncodeError:
        return False
    return True


def on_one_line(said: str) -> str:
    """For a terminal: what would move its cursor or change its colours is shown as what it is."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in said)

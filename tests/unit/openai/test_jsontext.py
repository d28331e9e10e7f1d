from __future__ import annotations

import json

import pytest

from tokenplace.errors import ApiError
from tokenplace.openai import jsontext

UNREADABLE: list[tuple[bytes, str, str]] = [
    (b"", "invalid_json", "no body"),
    (b" \n", "invalid_json", "no body"),
    (b"{", "invalid_json", "line 1, column 2"),
    (b'{"a":1,}', "invalid_json", "not JSON"),
    (b"hello", "invalid_json", "not JSON"),
    (b"[]", "invalid_json", "an array"),
    (b'"text"', "invalid_json", "a string"),
    (b"null", "invalid_json", "null"),
    (b'{"a":NaN}', "invalid_json", "NaN"),
    (b'{"a":-Infinity}', "invalid_json", "-Infinity"),
    (b'{"a":1e999}', "invalid_json", "1e999"),
    (b'{"a":' + b"9" * 5000 + b"}", "invalid_json", "number"),
    (b'{"a":"\xff"}', "invalid_json", "not UTF-8 (at byte 6)"),
    (b'{"a":"\\ud800"}', "invalid_json", "surrogate"),
    (b'{"\\udc00":1}', "invalid_json", "surrogate"),
    (b'{"a":1,"a":2}', "duplicate_key", "'a' twice"),
    (b'{"x":[{"b":1,"b":1}]}', "duplicate_key", "'b' twice"),
    (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "json_too_deep", "64"),
    (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "json_too_deep", "64"),
    (b'{"a":[' + b"[]," * 100_000 + b"[]]}", "json_too_large", "100000"),
    (b'{"a":[' + b"[]," * 1_000_000 + b"[]]}", "json_too_large", "100000"),
    (b'{"a":' * 100 + b"1" + b"}" * 100, "json_too_deep", "64"),
]


@pytest.mark.parametrize(("body", "code", "words"), UNREADABLE, ids=lambda value: str(value)[:40])
def test_a_body_that_could_be_misread_is_refused(body: bytes, code: str, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        jsontext.read_object(body)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, None)
    assert words in caught.value.message


def test_pairs_of_surrogates_are_characters() -> None:
    assert jsontext.read_object(b'{"a":"\\ud83e\\udd84"}') == {"a": "🦄"}


def test_sixty_three_levels_within_the_object_are_read() -> None:
    body = b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"
    assert jsontext.read_object(body)


def test_what_is_written_is_compact_utf8_and_reads_the_same() -> None:
    value = {"words": "Grüße 🦄", "number": 0.25, "none": None}
    written = jsontext.write(value)
    assert written == '{"words":"Grüße 🦄","number":0.25,"none":null}'.encode()
    assert json.loads(written) == value

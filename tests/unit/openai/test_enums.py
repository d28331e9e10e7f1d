"""Long enums in other words take the same values, and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.openai.enums import LONG, lighter, pattern_of

ALPHABET = 'ab01 -_./"\\(){}[]|*+?^$é☃\n\t'
VALUES = st.sets(st.text(ALPHABET, max_size=6), min_size=1, max_size=40)


def takes(pattern: str, value: str) -> bool:
    """Whether a string may be written so in JSON."""
    return re.fullmatch(pattern, json.dumps(value, ensure_ascii=False)[1:-1]) is not None


@settings(database=None, deadline=None)
@given(VALUES, st.lists(st.text(ALPHABET, max_size=6), max_size=20))
def test_a_pattern_takes_exactly_the_values(values: set[str], others: list[str]) -> None:
    pattern = pattern_of(values)
    assert pattern is not None
    near = [value[:-1] for value in values] + [value + "a" for value in values] + [value[::-1] for value in values]
    for value in [*values, *others, *near]:
        assert takes(pattern, value) == (value in values)


@settings(database=None, deadline=None)
@given(VALUES)
def test_a_pattern_escapes_nothing_that_the_runtime_cannot_read(values: set[str]) -> None:
    pattern = pattern_of(values)
    assert pattern is not None
    assert set(re.findall(r"\\(.)", pattern[1:-1])) <= set("\\^$.[](){}|*+?")


def test_shared_beginnings_and_equal_endings_are_said_once() -> None:
    values = [f"item number {number}" for number in range(1000)]
    pattern = pattern_of(values)
    assert pattern is not None
    assert len(pattern) < 100
    assert all(takes(pattern, value) for value in values)
    assert not takes(pattern, "item number 1000")
    assert not takes(pattern, "item number 01")


def test_values_within_each_other_without_end_have_no_pattern() -> None:
    assert pattern_of(["a" * length for length in range(200)]) is None


def test_long_values_take_no_time() -> None:
    assert pattern_of([f"{number}{'x' * 100_000}" for number in range(LONG + 1)]) is not None


NAMES = [f"name {number}" for number in range(LONG + 1)]
NUMBERS = list(range(7, 8 + LONG))


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        ({"enum": NUMBERS}, {"type": "integer", "minimum": 7, "maximum": 7 + LONG}),
        ({"type": "integer", "enum": NUMBERS[::-1]}, {"type": "integer", "minimum": 7, "maximum": 7 + LONG}),
        ({"enum": NAMES, "title": "N"}, {"title": "N", "type": "string", "pattern": pattern_of(NAMES)}),
        ({"type": ["string", "null"], "enum": NAMES}, {"type": "string", "pattern": pattern_of(NAMES)}),
        ({"items": [{"enum": NUMBERS}]}, {"items": [{"type": "integer", "minimum": 7, "maximum": 7 + LONG}]}),
    ],
    ids=str,
)
def test_a_long_enum_is_put_in_other_words_wherever_it_stands(schema: Any, made: Any) -> None:
    assert lighter(schema) == made
    assert lighter({"properties": {"x": schema}}) == {"properties": {"x": made}}


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": NAMES[1:]},
        {"enum": [*NAMES, 5]},
        {"enum": [*NAMES, None]},
        {"enum": NUMBERS[:5] + NUMBERS[6:] + [99]},
        {"enum": [*NUMBERS, True]},
        {"enum": [float(number) for number in NUMBERS]},
        {"enum": list(range(-5, LONG))},
        {"type": "integer", "enum": NAMES},
        {"type": "string", "enum": NUMBERS},
        {"enum": NAMES, "maxLength": 6},
        {"enum": NAMES, "pattern": "^name 1.*$"},
        {"enum": ["a" * length for length in range(200)]},
        {"const": {"enum": NAMES}},
        {"default": {"enum": NAMES}},
        {"examples": [{"enum": NAMES}]},
        {"type": "string"},
        True,
        5,
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_everything_else_stays_as_it_is(schema: Any) -> None:
    assert lighter(schema) == schema

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import EngineError
from tokenplace.openai.forced import ForcedText, Forcing, Part, instructions, response_format
from tokenplace.openai.tools import Function

WEATHER = Function(
    name="weather",
    description="Weather of a city",
    parameters={
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/City"}, "self": {"$ref": "#"}},
        "$defs": {"City": {"type": "string", "enum": ["#/$defs/City"]}},
    },
)
CLOCK = Function(name="clock")


def read(*pieces: str, required: bool = False) -> tuple[ForcedText, dict[Part, str]]:
    reader = ForcedText(required=required)
    out: dict[Part, str] = {}
    for piece in pieces:
        for part, text in reader.feed(piece):
            out[part] = out.get(part, "") + text
    return reader, out


def test_a_call_becomes_its_name_and_its_arguments() -> None:
    reader, out = read('{"name":"weather","arguments":{"city":"Bonn"}}')
    assert out == {Part.NAME: "weather", Part.ARGUMENTS: '{"city":"Bonn"}'}
    assert reader.whole
    assert reader.called


def test_words_become_words() -> None:
    reader, out = read('{"response":"Hello \\"you\\" \\u263a \\ud83e\\udd84\\n"}')
    assert out == {Part.WORDS: 'Hello "you" ☺ 🦄\n'}
    assert reader.whole
    assert not reader.called


def test_white_space_between_the_parts_does_not_matter_and_is_not_passed_on() -> None:
    _, out = read(' {\n "name" : "weather" ,\n "arguments" : {\n  "city" : "New  York" ,\n "n" : [ 1 , 2 ]\n } \n}\n')
    assert out == {Part.NAME: "weather", Part.ARGUMENTS: '{"city":"New  York","n":[1,2]}'}


def test_braces_and_quotes_inside_strings_end_nothing() -> None:
    arguments = {"a": '}"{', "b": ["\\", {"c": "]"}]}
    _, out = read(json.dumps({"name": "f", "arguments": arguments}))
    assert json.loads(out[Part.ARGUMENTS]) == arguments


def test_arguments_are_passed_on_as_they_come() -> None:
    reader = ForcedText(required=True)
    assert reader.feed('{"name":"f","arg') == []
    assert reader.feed('uments":{"a"') == [(Part.NAME, "f"), (Part.ARGUMENTS, '{"a"')]
    assert reader.feed(":1") == [(Part.ARGUMENTS, ":1")]
    assert reader.feed("}") == [(Part.ARGUMENTS, "}")]
    assert reader.whole
    assert reader.feed("}") == []


def test_a_call_is_whole_with_its_last_brace_and_not_before() -> None:
    assert [
        read(text)[0].whole for text in ('{"name":"f","arguments":{"a":{}', '{"name":"f","arguments":{"a":{}}')
    ] == [
        False,
        True,
    ]


def test_half_an_escape_waits_for_its_other_half() -> None:
    reader = ForcedText(required=False)
    assert reader.feed('{"response":"a\\') == [(Part.WORDS, "a")]
    assert reader.feed("ud83e") == []
    assert reader.feed("\\udd84b") == [(Part.WORDS, "🦄b")]


def test_half_a_pair_alone_becomes_the_sign_for_that() -> None:
    _, out = read('{"response":"a\\ud83eb\\udd84c"}')
    assert out == {Part.WORDS: "a\ufffdb\ufffdc"}


@settings(max_examples=200, deadline=None, database=None)
@given(words=st.text(st.characters(exclude_categories=["Cs"])), data=st.data(), ascii_only=st.booleans())
def test_words_in_any_cut_are_the_same_words(words: str, data: st.DataObject, ascii_only: bool) -> None:
    text = json.dumps({"response": words}, ensure_ascii=ascii_only)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    reader, out = read(*pieces)
    assert out.get(Part.WORDS, "") == words
    assert reader.whole


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, database=None)
@given(
    arguments=st.dictionaries(st.text(max_size=5), _json, max_size=4),
    data=st.data(),
    indent=st.sampled_from([None, 2]),
)
def test_arguments_in_any_cut_are_the_same_arguments(
    arguments: dict[str, Any], data: st.DataObject, indent: int | None
) -> None:
    text = json.dumps({"name": "f", "arguments": arguments}, indent=indent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    reader, out = read(*pieces, required=True)
    assert json.loads(out[Part.ARGUMENTS]) == arguments
    assert reader.whole


@pytest.mark.parametrize(
    ("text", "required"),
    [
        ("Hello", False),
        ("[1]", False),
        ('{"response":"words where a call is required"}' + " " * 1024, True),
        ('{"name":"f"' + " " * 1024, True),
        ('{"response":"\\x not an escape"}', False),
    ],
    ids=lambda value: str(value)[:30],
)
def test_text_that_does_not_keep_to_the_schema_is_a_failure_of_the_engine(text: str, required: bool) -> None:
    with pytest.raises(EngineError):
        read(text, required=required)


def test_the_schema_has_one_shape_for_each_function_and_one_for_words() -> None:
    schema = response_format(Forcing((WEATHER, CLOCK), required=False))["json_schema"]["schema"]
    names = [shape["properties"].get("name", {}).get("const") for shape in schema["anyOf"]]
    assert names == ["weather", "clock", None]
    assert schema["anyOf"][2]["required"] == ["response"]


def test_where_a_call_is_required_there_is_no_shape_for_words() -> None:
    schema = response_format(Forcing((WEATHER, CLOCK), required=True))["json_schema"]["schema"]
    assert len(schema["anyOf"]) == 2


def test_one_required_function_is_the_whole_schema() -> None:
    schema = response_format(Forcing((CLOCK,), required=True))["json_schema"]["schema"]
    assert schema["properties"]["name"] == {"const": "clock"}
    assert schema["$defs"]["function0"]["additionalProperties"] is False


def test_references_follow_the_schema_to_its_new_place_and_values_stay() -> None:
    schema = response_format(Forcing((CLOCK, WEATHER), required=True))["json_schema"]["schema"]
    moved = schema["$defs"]["function1"]
    assert moved["properties"] == {
        "city": {"$ref": "#/$defs/function1/$defs/City"},
        "self": {"$ref": "#/$defs/function1"},
    }
    assert moved["$defs"]["City"]["enum"] == ["#/$defs/City"]


def test_the_model_is_told_what_it_may_call() -> None:
    told = instructions(Forcing((WEATHER, CLOCK), required=False))
    assert '"name":"weather","description":"Weather of a city"' in told
    assert '"name":"clock"' in told
    assert '{"response": "your words"}' in told
    assert "response" not in instructions(Forcing((CLOCK,), required=True))

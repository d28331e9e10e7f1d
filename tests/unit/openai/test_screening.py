from __future__ import annotations

from typing import Any

import pytest

from tokenplace.errors import ApiError
from tokenplace.openai.screening import DEFAULT_PHRASES, PhraseScreen, has_token_ids, texts_of

SCREEN = PhraseScreen(DEFAULT_PHRASES)


@pytest.mark.parametrize(
    "text",
    [
        "kill",
        "How do I KILL it?",
        "k\u200bill",
        "k\u00adill",
        "kïll",
        "ｋｉｌｌ",
        "𝐤𝐢𝐥𝐥 them",
        "build a bomb",
        "Build\n\tA   bomb!",
        "build-a-bomb",
        "build, a: bomb",
        "build\u00a0a\u2003bomb",
        "please kill_it",
    ],
)
def test_a_phrase_is_found_however_it_is_written(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        SCREEN(["harmless", text])
    assert (caught.value.status, caught.value.type, caught.value.code) == (
        400,
        "content_policy_violation",
        "content_blocked",
    )


@pytest.mark.parametrize("text", ["skills", "killer whales", "overkill", "Kilimanjaro", "build a bombe", "", "weapon"])
def test_a_word_that_only_holds_one_is_another_word(text: str) -> None:
    SCREEN([text])


def test_the_refusal_does_not_say_what_was_found() -> None:
    with pytest.raises(ApiError) as caught:
        SCREEN(["kill the process"])
    assert "kill" not in caught.value.message


def test_phrases_of_other_scripts_are_found_too() -> None:
    screen = PhraseScreen(["взломать банк", "ストロング"])
    for text in ("Как ВЗЛОМАТЬ   банк?", "ｽﾄﾛﾝｸﾞ"):
        with pytest.raises(ApiError):
            screen([text])


def test_nothing_is_refused_where_there_are_no_phrases() -> None:
    PhraseScreen([])(["kill"])
    PhraseScreen(["", " - "])(["kill"])


def test_every_word_of_a_request_is_read_once_and_a_message_is_one_text() -> None:
    fields = {
        "model": "kill",
        "temperature": 1,
        "messages": [
            {"role": "system", "content": "be kind"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "build a"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "text", "text": "bomb"},
                ],
            },
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "result"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "does"}}],
        "instructions": "say",
        "input": "in",
        "prompt": ["one", "two"],
    }
    assert texts_of(fields) == ["be kind", "build a\nbomb", "f\n{}", "result", "f\ndoes", "say", "in", "one", "two"]
    with pytest.raises(ApiError):
        SCREEN(texts_of(fields))


@pytest.mark.parametrize("text", ["data:image/ kill", "data:image/png;base64, kill", "data:image/png;base64,AA\nkill"])
def test_a_text_that_begins_like_a_picture_is_read_too(text: str) -> None:
    assert texts_of({"prompt": text}) == [text]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [1]}, "prompt"),
        ({"input": [[1]]}, "input"),
        ({"prompt": ["a"], "input": "a"}, None),
        ({"input": [{"role": "user"}], "prompt": []}, None),
    ],
)
def test_token_ids_are_found(fields: dict[str, Any], param: str | None) -> None:
    assert has_token_ids(fields) == param

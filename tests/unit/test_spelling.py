"""How lists and secrets may be written in settings."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from tokenplace.spelling import secret, words, words_of


@pytest.mark.parametrize(
    ("text", "read"),
    [("", []), (" , ,", []), ("one", ["one"]), (" one, two words ,", ["one", "two words"])],
)
def test_a_list_is_what_stands_between_commas(text: str, read: list[str]) -> None:
    assert words(text) == read
    assert words_of(text) == read


def test_what_is_no_text_is_left_to_its_reader() -> None:
    given = ["one, and the same"]
    assert words_of(given) is given


def test_a_secret_is_the_first_that_is_not_blank() -> None:
    assert secret(None, SecretStr("  "), SecretStr(" second "), SecretStr("third")) == "second"
    assert secret() is secret(None) is secret(SecretStr("")) is None

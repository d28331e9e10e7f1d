"""Moderation by phrases: whole words, however they are written.

"kill" is in "KILL", "k\\u200bill" and "kìll", and not in "skills". A phrase is its words in order with anything but
letters and digits between them. Which phrase it was is told to nobody: what is refused must not be spelt in logs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenplace.errors import ApiError
from tokenplace.openai import refusals

DEFAULT_PHRASES = ("build a bomb", "harm humans", "kill", "make a weapon", "weaponize")
"""The original's list."""

_OFF = frozenset({"", "disabled", "off", "none"})
_NO = frozenset({"0", "false", "no", "off"})

_WORDS = re.compile(r"[^\W_]+")
_PICTURE = re.compile(r"data:image/[^\s,]{1,64};base64,[A-Za-z0-9+/=]*")
"""A picture and nothing else; a text that only begins like one is a text."""

_STRUCTURE = frozenset({"role", "type", "detail", "status"})
"""Keys whose strings are OpenAI's, not the person's; requests are checked before they are read here."""

_INVISIBLE = frozenset({"Cf", "Mn", "Me"})
"""Categories of characters that change how a word is written and not which it is: joiners, marks, accents."""


def phrases_of(mode: str, blocklist: Iterable[str], include_defaults: str) -> tuple[str, ...]:
    """What is refused under the original's three settings; nothing where the mode is off."""
    if mode.strip().lower() in _OFF:
        return ()
    with_defaults = include_defaults.strip().lower() not in _NO
    return (*(DEFAULT_PHRASES if with_defaults else ()), *blocklist)


def blocked() -> ApiError:
    """The refusal, which does not say what was found."""
    return ApiError(
        "This request has words that this node does not answer to. Rephrase it, or ask another node.",
        type="content_policy_violation",
        code="content_blocked",
    )


class PhraseScreen:
    """Refuses texts that hold one of the phrases. Phrases without a letter or digit are passed over.

    Words are looked up, not searched for: the time does not grow with the number of phrases.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._begin: dict[str, set[tuple[str, ...]]] = {}
        """First word → the phrases that begin with it."""
        for phrase in phrases:
            if words := tuple(_WORDS.findall(_plain(phrase))):
                self._begin.setdefault(words[0], set()).add(words)

    @property
    def empty(self) -> bool:
        """Whether nothing is refused."""
        return not self._begin

    def __call__(self, texts: Sequence[str]) -> None:
        """Raises ApiError when one of the texts is to be refused."""
        for text in texts:
            words = _WORDS.findall(_plain(text))
            if not self._begin.keys().isdisjoint(words) and self._holds(words):
                raise blocked()

    def _holds(self, words: Sequence[str]) -> bool:
        return any(
            tuple(words[at : at + len(phrase)]) == phrase
            for at, word in enumerate(words)
            for phrase in self._begin.get(word, ())
        )


def _plain(text: str) -> str:
    """As it sounds: compatibility forms resolved, no accents, nothing invisible, one case."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if unicodedata.category(letter) not in _INVISIBLE)


def has_token_ids(fields: Mapping[str, Any]) -> str | None:
    """The parameter whose words are hidden in token ids, None where there is none."""
    for param in ("prompt", "input"):
        value = fields.get(param)
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, int) or (isinstance(first, list) and first and isinstance(first[0], int)):
            return param
    return None


def unreadable(param: str) -> ApiError:
    """Token ids would be a way around the screen."""
    return refusals.unsupported(param, "What is asked here is read first, and token ids cannot be read; send text.")


def texts_of(fields: Mapping[str, Any]) -> list[str]:
    """Everything a request says, whoever says it: one text for each message, prompt, tool or other field.

    The strings of one message are one text, so that a phrase does not hide by being cut in two.
    """
    texts: list[str] = []
    for name, value in fields.items():
        if name == "model":
            continue
        for part in value if isinstance(value, list) else (value,):
            said = "\n".join(_strings(part))
            if said:
                texts.append(said)
    return texts


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not _PICTURE.fullmatch(value):
            yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not (key in _STRUCTURE and isinstance(item, str)):
                yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)

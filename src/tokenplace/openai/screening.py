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

DEFAULT_PHRASES = ("build a bomb", "harm humans", "kill", "make a weapon", "weaponize")
"""The original's list."""

_WORDS = re.compile(r"[^\W_]+")
_BETWEEN = r"[\W_]+"
_STRUCTURE = frozenset({"role", "type", "detail", "status"})
"""Keys whose strings are OpenAI's, not the person's; requests are checked before they are read here."""

_INVISIBLE = frozenset({"Cf", "Mn", "Me"})
"""Categories of characters that change how a word is written and not which it is: joiners, marks, accents."""


def blocked() -> ApiError:
    """The refusal, which does not say what was found."""
    return ApiError(
        "This request has words that this node does not answer to. Rephrase it, or ask another node.",
        type="content_policy_violation",
        code="content_blocked",
    )


class PhraseScreen:
    """Refuses texts that hold one of the phrases. Phrases without a letter or digit are passed over."""

    def __init__(self, phrases: Iterable[str]) -> None:
        spelt = {tuple(_WORDS.findall(_plain(phrase))) for phrase in phrases} - {()}
        either = "|".join(_BETWEEN.join(words) for words in sorted(spelt, key=len, reverse=True))
        self._pattern = re.compile(rf"(?<![^\W_])(?:{either})(?![^\W_])") if spelt else None

    def __call__(self, texts: Sequence[str]) -> None:
        """Raises ApiError when one of the texts is to be refused."""
        if self._pattern is not None and any(self._pattern.search(_plain(text)) for text in texts):
            raise blocked()


def _plain(text: str) -> str:
    """As it sounds: compatibility forms resolved, no accents, nothing invisible, one case."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if unicodedata.category(letter) not in _INVISIBLE)


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
        if not value.startswith("data:image/"):
            yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not (key in _STRUCTURE and isinstance(item, str)):
                yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)

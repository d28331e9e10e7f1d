"""How people write settings that are more than one word: a list with commas, a path, a secret of several names."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Secret(Protocol):
    """What keeps itself out of logs, such as pydantic's SecretStr."""

    def get_secret_value(self) -> str:
        """The secret."""


def words(text: str) -> list[str]:
    """The words between the commas, blanks around them and empty ones left out."""
    return [word.strip() for word in text.split(",") if word.strip()]


def words_of(value: object) -> object:
    """The same of a setting's value as it comes: text becomes a list, anything else stays for its reader to judge."""
    return words(value) if isinstance(value, str) else value


def path_of(value: object) -> object:
    """A setting's value where it is to be a path: `~` is read, and a blank is no path."""
    if not isinstance(value, str):
        return value
    return Path(value.strip()).expanduser() if value.strip() else None


def secret(*named: Secret | None) -> str | None:
    """The first of them that is set and not blank."""
    texts = (each.get_secret_value().strip() for each in named if each is not None)
    return next(filter(None, texts), None)

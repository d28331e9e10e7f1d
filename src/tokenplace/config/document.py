"""Configuration files, JSON or TOML: where they are, reading, merging, and writing without secrets."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from tokenplace.errors import ConfigError

CONFIG_VARIABLE: Final = "TOKEN_PLACE_CONFIG"

Json: TypeAlias = "Mapping[str, Json] | list[Json] | str | int | float | bool | None"

_NAMES = (Path("config") / "user_config.json", Path("config.json"), Path("config.toml"))
"""The original saved the first; the weakest comes first."""


@dataclass(frozen=True, slots=True)
class Document:
    """One file, as a tree of tables."""

    path: Path
    content: Mapping[str, Json]


def places(named: str | None, folder: Path, home: Path) -> list[Path]:
    """Where configuration is looked for, the weakest first. A file named by TOKEN_PLACE_CONFIG stands alone."""
    if named:
        return [folder / Path(named).expanduser()]
    return [home / name for name in _NAMES]


def read_documents(named: str | None, folder: Path, home: Path) -> list[Document]:
    """The files that are there. Raises ConfigError, also when the named one is missing."""
    paths = places(named, folder, home)
    if named and not paths[0].is_file():
        raise ConfigError(f"{CONFIG_VARIABLE} names {paths[0]}, and there is no such file.")
    return [Document(path, read_document(path)) for path in paths if path.is_file()]


def read_document(path: Path) -> dict[str, Json]:
    """One file's content: TOML by its suffix, else JSON. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON: {error.msg} in line {error.lineno}.") from None
    except (UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{path} cannot be read: it is not text, or nested too deep.") from None
    if not isinstance(content, dict):
        raise ConfigError(f'{path} must hold one table, such as {{"relay": {{"port": 5000}}}}.')
    return content


def leaves(table: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    """Every value with its dotted key. Merging documents leaf by leaf is a deep merge."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def as_text(key: str, value: Json) -> str | None:
    """A value as an environment variable would give it; None for null, which means "not set". Raises ConfigError."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list):
        words = [as_text(key, word) or "" for word in value if not isinstance(word, list)]
        if len(words) == len(value) and not any("," in word for word in words):
            return ",".join(word for word in words if word)
    raise ConfigError(f"The value of {key} is too deep: it is text, a number, true, false, or a list of words.")


def with_value(content: Mapping[str, Json], key: str, value: Json) -> dict[str, Json]:
    """The same document with one more value. Raises ConfigError where a plain value is in the way."""
    head, _, rest = key.partition(".")
    if not rest:
        return {**content, head: value}
    below = content.get(head, {})
    if not isinstance(below, Mapping):
        raise ConfigError(f"{head} is a plain value there; it must be a table.")
    return {**content, head: with_value(below, rest, value)}


def write_document(path: Path, content: Mapping[str, Json]) -> None:
    """Write JSON at once or not at all, readable for its owner only. Raises ConfigError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}).") from None

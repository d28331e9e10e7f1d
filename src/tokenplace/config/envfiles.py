"""Dotenv files: which are read, in which order, and what stands in them.

Only names that token.place knows are taken out of them. The file of some other project in the same directory cannot
set a loader path or a proxy for us.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final

from tokenplace.errors import ConfigError

ENVIRONMENT_VARIABLE: Final = "TOKEN_PLACE_ENV"
ENV_FILE_VARIABLE: Final = "TOKEN_PLACE_ENV_FILE"

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class EnvFile:
    """One file and what it says."""

    path: Path
    values: Mapping[str, str]


def candidates(environ: Mapping[str, str], folder: Path) -> list[Path]:
    """The files that are looked for, the weakest first. TOKEN_PLACE_ENV may stand in `.env`. Raises ConfigError."""
    paths = [folder / ".env"]
    name = environ.get(ENVIRONMENT_VARIABLE) or _said(paths, environ, ENVIRONMENT_VARIABLE)
    if name:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{ENVIRONMENT_VARIABLE} is one word, such as production; it is part of a file name.")
        paths.append(folder / f".env.{name}")
    paths.append(folder / ".env.local")
    named = environ.get(ENV_FILE_VARIABLE) or _said(paths, environ, ENV_FILE_VARIABLE)
    if named:
        path = folder / Path(named).expanduser()
        if not path.is_file():
            raise ConfigError(f"{ENV_FILE_VARIABLE} names {path}, and there is no such file.")
        paths.append(path)
    return paths


def read_env_files(environ: Mapping[str, str], folder: Path) -> tuple[list[EnvFile], list[str]]:
    """The files that are there, the weakest first, and notes on those that were passed over. Raises ConfigError."""
    found, notes = [], []
    for path in candidates(environ, folder):
        if not path.is_file():
            continue
        if _strange(path):
            notes.append(f"{path} is passed over: it is not yours, and anybody may write in its directory")
        else:
            found.append(EnvFile(path, read_env_file(path, environ)))
    return found, notes


def read_env_file(path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What one file says; `${NAME}` and `${NAME:-default}` are filled in. Raises ConfigError."""
    from dotenv.parser import parse_stream  # only those who have such a file pay for it

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({_reason(error)}).") from None
    values: dict[str, str] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            raise ConfigError(f"{path}, line {binding.original.line} is not of the form NAME=VALUE.")
        if binding.key is not None and binding.value is not None:
            values[binding.key] = _filled(binding.value, {**values, **environ})
    return values


def _filled(text: str, known: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda found: known.get(found[1]) or found[2] or "", text)


def _said(paths: Sequence[Path], environ: Mapping[str, str], name: str) -> str:
    """What the files say of a variable that decides which further files there are."""
    said = ""
    for path in paths:
        if path.is_file() and not _strange(path):
            said = read_env_file(path, environ).get(name, said)
    return said


def _strange(path: Path) -> bool:
    """Whether somebody else may have put this file there: think of `/tmp/.env`."""
    if os.name != "posix":
        return False
    return path.stat().st_uid not in (os.geteuid(), 0) and bool(path.parent.stat().st_mode & stat.S_IWOTH)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "unreadable" if isinstance(error, OSError) else "it is not UTF-8"

"""A file that an operator may change while the relay runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from tokenplace.errors import TokenPlaceError

T = TypeVar("T")
_log = structlog.get_logger("tokenplace.relay")


class Watched(Generic[T]):
    """What a file says, read again when it has changed.

    A change that cannot be read is logged, and what was read before stays: a slip of the pen must neither let anybody
    in nor throw everybody out. The same holds for a file that vanishes. Raises TokenPlaceError when it cannot be read
    the first time; one that is not there says `empty`.
    """

    def __init__(self, path: Path, parse: Callable[[str], T], empty: T) -> None:
        self.path = path
        self._parse = parse
        self.value = empty
        self._seen = self._mark()
        if self._seen is not None:
            self.value = self._read()

    def refresh(self) -> bool:
        """Look whether it has changed; costs one `stat`. True when there is something new."""
        mark = self._mark()
        if mark == self._seen or mark is None:
            return False
        self._seen = mark
        try:
            self.value = self._read()
        except TokenPlaceError as error:
            _log.error("relay.file_unreadable", file=self.path.name, reason=error.message, kept="what it said before")
            return False
        return True

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> T:
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenPlaceError(f"{self.path} cannot be read: {error}") from None
        return self._parse(text)

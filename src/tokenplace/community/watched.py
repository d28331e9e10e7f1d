"""A file that the operator edits while the relay runs: read again when it has changed, and only then."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_BYTES = 1024 * 1024


class Away(Exception):
    """The file is missing, cannot be read or is not what it should be; the text says which."""


class Watched(Generic[T]):
    """`read` makes a value of the bytes, or raises ValueError. Asking costs one look at the file's state."""

    def __init__(self, path: Path, read: Callable[[bytes], T]) -> None:
        self.path = path
        self._parse = read
        self._stamp: tuple[int, int, int] | None = None
        self._value: T | Away | None = None
        self._lock = threading.Lock()

    def value(self) -> T:
        """What the file says now. Raises FileNotFoundError and Away."""
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    state = os.fstat(file.fileno())
                    stamp = (state.st_ino, state.st_size, state.st_mtime_ns)
                    if stamp != self._stamp or self._value is None:
                        self._value = self._made(file.read(MOST_BYTES + 1))
                        self._stamp = stamp
            except FileNotFoundError:
                self._stamp = None
                raise
            except OSError as error:
                self._stamp = None
                raise Away(f"cannot be read ({error.strerror})") from None
            if isinstance(self._value, Away):
                raise self._value
            return self._value

    def _made(self, content: bytes) -> T | Away:
        if len(content) > MOST_BYTES:
            return Away(f"has more than {MOST_BYTES} bytes")
        try:
            return self._parse(content)
        except ValueError as error:
            return Away(f"cannot be understood: {error}")

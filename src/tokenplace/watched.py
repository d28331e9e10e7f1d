"""A file that an operator changes while a program runs: read again when it has changed, and only then."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from tokenplace.errors import TokenPlaceError

T = TypeVar("T")
MOST_BYTES = 1024 * 1024


class Away(Exception):
    """The file is there, or may be, and cannot be read or is not what it should be; the text says which."""


class Watched(Generic[T]):
    """`read` makes a value of the bytes, or raises ValueError or an error of its own that says what is wrong.

    Asking costs one look at the file's state. Only a file that the system says does not exist is missing: one that
    cannot be reached now may well be there.
    """

    def __init__(self, path: Path, read: Callable[[bytes], T], most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._parse = read
        self._most = most_bytes
        self._stamp: tuple[int, int, int] | None = None
        self._value: T | Away | TokenPlaceError | None = None
        self._lock = threading.Lock()

    def value(self) -> T:
        """What the file says now. Raises FileNotFoundError, Away, or the TokenPlaceError that `read` raised."""
        with self._lock:
            try:
                with self.path.open("rb") as file:
                    state = os.fstat(file.fileno())
                    stamp = (state.st_ino, state.st_size, state.st_mtime_ns)
                    if stamp != self._stamp or self._value is None:
                        self._value = self._made(file.read(self._most + 1))
                        self._stamp = stamp
            except FileNotFoundError:
                self._stamp = None
                raise
            except OSError as error:
                self._stamp = None
                raise Away(f"cannot be read ({error.strerror})") from None
            if isinstance(self._value, Away | TokenPlaceError):
                raise self._value.with_traceback(None)  # raised again and again, it would collect all its ways
            return self._value

    def _made(self, content: bytes) -> T | Away | TokenPlaceError:
        if len(content) > self._most:
            return Away(f"has more than {self._most} bytes")
        try:
            return self._parse(content)
        except TokenPlaceError as error:
            return error
        except ValueError as error:
            return Away(f"cannot be understood: {error}")

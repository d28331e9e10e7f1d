"""A lock between processes: whoever holds it is the only one, and it is free again when its holder dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _give(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _give(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


_PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02)


class Busy(Exception):
    """Somebody else holds the lock, and went on holding it."""


@contextmanager
def locked(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock file at `path`, made where it is missing. Raises Busy after `patience` seconds, and OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + patience
        pauses = iter(_PAUSES)
        while True:
            try:
                _take(descriptor)
                break
            except (BlockingIOError, PermissionError):  # the second is how Windows says the same
                if time.monotonic() > deadline:
                    raise Busy from None
                time.sleep(next(pauses, _PAUSES[-1]))
        try:
            yield
        finally:
            _give(descriptor)
    finally:
        os.close(descriptor)

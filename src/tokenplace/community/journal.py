"""A file of JSON lines that several processes append to, read and now and then rewrite.

Whoever writes holds a lock on a file beside it, so that no line is torn and none is lost. Readers need no lock: a line
counts when its end is there, and a rewrite replaces the file in one step. A line that cannot be read is left where it
is, counted, and passed over.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from tokenplace.community import faults
from tokenplace.locks import Busy, locked

T = TypeVar("T")
_PATIENCE = 30.0
_TAIL = 256
_OWNER_ONLY = 0o600


@dataclass(slots=True)
class _Read(Generic[T]):
    """What was read of the file, and by what it is known that it is still the same."""

    values: list[T] = field(default_factory=list)
    bad: int = 0
    end: int = 0
    """Bytes read, up to the end of the last whole line."""
    tail: bytes = b""
    stamp: tuple[int, int, int] | None = None
    """Inode, size and time of the last change."""
    open: bool = False
    """The last line had no end, as people's editors leave it; what is appended must be read with it."""


class Journal(Generic[T]):
    """The lines of one file as values. `read` makes one of a line's object, or raises ValueError.

    `skipped` is told the number of bad lines when it has changed. Methods may be called from any thread.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Mapping[str, Any]], T],
        *,
        most_bytes: int,
        skipped: Callable[[Path, int], None],
    ) -> None:
        self.path = path
        self.parse = read
        self._most = most_bytes
        self._skipped = skipped
        self._read: _Read[T] = _Read()
        self._reading = threading.Lock()
        self._writing = threading.Lock()

    def values(self) -> list[T]:
        """What the file says now. Raises ApiError (503) when it is there and cannot be read."""
        with self._reading:
            return list(self._fresh().values)

    @contextmanager
    def writing(self) -> Iterator[Pen[T]]:
        """Hold the file: nobody else writes while the block runs. Raises ApiError (503)."""
        if not self._writing.acquire(timeout=_PATIENCE):
            raise faults.busy()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.with_name(f".{self.path.name}.lock"), _PATIENCE):
                yield Pen(self, self._most)
        except Busy:
            raise faults.busy() from None
        except OSError:
            raise faults.not_writable() from None
        finally:
            self._writing.release()

    def _fresh(self) -> _Read[T]:
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                stamp = (state.st_ino, state.st_size, state.st_mtime_ns)
                if stamp != self._read.stamp:
                    self._read = self._go_on(file, stamp)
        except FileNotFoundError:
            self._read = _Read()
        except OSError:
            raise faults.not_readable() from None
        return self._read

    def _go_on(self, file: Any, stamp: tuple[int, int, int]) -> _Read[T]:
        """Read what was appended, or everything when the file is another one now."""
        known, before = self._read, self._read.bad
        grown = known.stamp is not None and known.stamp[0] == stamp[0] and known.stamp[1] < stamp[1] and not known.open
        if grown:
            file.seek(known.end - len(known.tail))
            grown = file.read(len(known.tail)) == known.tail
        if not grown:
            known = _Read()
            file.seek(0)
        content = file.read(max(0, 4 * self._most - known.end))
        whole = content[: content.rfind(b"\n") + 1]
        rest = content[len(whole) :]
        values, bad = list(known.values), known.bad
        for line in whole.splitlines():
            if line.strip():
                try:
                    values.append(self.parse(_object(line)))
                except (ValueError, RecursionError):
                    bad += 1
        with suppress(ValueError, RecursionError):
            if rest.strip():
                values.append(self.parse(_object(rest)))
        if bad and bad != before:
            self._skipped(self.path, bad)
        return _Read(values, bad, known.end + len(whole), (known.tail + whole)[-_TAIL:], stamp, bool(rest))


class Pen(Generic[T]):
    """The right to write into a journal, as long as the lock is held."""

    def __init__(self, journal: Journal[T], most: int) -> None:
        self._journal = journal
        self._most = most

    @property
    def bytes(self) -> int:
        """The size of the file."""
        with suppress(FileNotFoundError):
            return self._journal.path.stat().st_size
        return 0

    def append(self, fields: Mapping[str, Any]) -> None:
        """Write one line and have it on the disk. Raises ApiError (503) when the file is full or cannot be written."""
        line = _line(fields)
        descriptor = os.open(self._journal.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, _OWNER_ONLY)
        try:
            size = os.fstat(descriptor).st_size
            if size + len(line) > self._most:
                raise faults.full()
            if size and _last_byte(descriptor, size) != b"\n":
                line = b"\n" + line  # whoever wrote before us did not finish; theirs stays one bad line
            try:
                if os.write(descriptor, line) != len(line):
                    raise OSError("the disk is full")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def rewrite(self, change: Callable[[list[T]], Iterable[Mapping[str, Any]]]) -> None:
        """Write the file anew with what `change` makes of its values; bad lines stay, for people to look at."""
        values, bad = [], []
        content = self._journal.path.read_bytes() if self._journal.path.exists() else b""
        for line in content.splitlines():
            if line.strip():
                try:
                    values.append(self._journal.parse(_object(line)))
                except (ValueError, RecursionError):
                    bad.append(line + b"\n")
        put_file(self._journal.path, b"".join([*bad, *map(_line, change(values))]))


def put_file(path: Path, content: bytes) -> None:
    """Put a file in the place of another in one step, with its rights; a new one is for its owner. Raises OSError."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    before = path.stat() if path.exists() else None
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, _OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
            if before is not None and sys.platform != "win32":
                os.fchmod(out.fileno(), stat.S_IMODE(before.st_mode))
                with suppress(PermissionError):  # an administrator's command must not take the file from the relay
                    os.fchown(out.fileno(), before.st_uid, before.st_gid)
        _put(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _put(beside: Path, path: Path) -> None:
    """Windows lets no file be replaced while somebody reads it; readers are quick."""
    for pause in (0.01, 0.05, 0.2):
        try:
            beside.replace(path)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    beside.replace(path)


_BINARY = getattr(os, "O_BINARY", 0)


def _object(line: bytes) -> Mapping[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("a line is an object")
    return value


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, allow_nan=False).encode() + b"\n"


def _last_byte(descriptor: int, size: int) -> bytes:
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1)

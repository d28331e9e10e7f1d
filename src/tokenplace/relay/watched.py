"""What an operator's file says while the relay runs, also when the file has become unreadable meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from tokenplace.errors import TokenPlaceError
from tokenplace.watched import Away, Watched

T = TypeVar("T")
_MOST_BYTES = 16 * 1024 * 1024
_log = structlog.get_logger("tokenplace.relay")


class Rules(Generic[T]):
    """A file's rules, read again when it has changed.

    A change that cannot be read is logged, and what was read before stays: a slip of the pen must neither let anybody
    in nor throw everybody out. The same holds for a file that vanishes. Raises TokenPlaceError when it cannot be read
    the first time; one that does not exist says `empty`.
    """

    def __init__(self, path: Path, parse: Callable[[str], T], empty: T) -> None:
        self.path = path
        self.value = empty
        self._file = Watched(path, lambda content: parse(content.decode("utf-8")), _MOST_BYTES)
        self._was_there = False
        self._trouble: str | None = None
        try:
            self.value = self._file.value()
            self._was_there = True
        except FileNotFoundError:
            pass
        except Away as error:
            raise TokenPlaceError(f"{path} {error}") from None

    @property
    def there(self) -> bool:
        """Whether there is such a file, or was one, or may be one that cannot be read now."""
        return self._was_there or self._trouble is not None

    def refresh(self) -> bool:
        """Look whether it has changed. True when there is something new."""
        before = self.value
        try:
            self.value = self._file.value()
        except FileNotFoundError:
            self._tell("is missing" if self._was_there else None)
            return False
        except (Away, TokenPlaceError) as error:
            self._tell(str(error))
            return False
        self._trouble, self._was_there = None, True
        return self.value is not before

    def _tell(self, trouble: str | None) -> None:
        """Once of each trouble."""
        if trouble is not None and trouble != self._trouble:
            _log.error("relay.file_unreadable", file=self.path.name, reason=trouble, kept="what it said before")
        self._trouble = trouble

"""What a node keeps on disk: its identity, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

import structlog

from tokenplace.errors import TokenPlaceError
from tokenplace.sealing.identity import SEED_BYTES, Identity

NODE_IDENTITY = "node-identity"

_log = structlog.get_logger("tokenplace.node")


class HomeError(TokenPlaceError):
    """The node's state directory cannot be used."""

    code = "state_unusable"


def load_identity(home: Path, name: str = NODE_IDENTITY) -> Identity:
    """The identity called `name` in `home`, made at the first start (file mode 0600). Raises HomeError.

    An identity is never made anew over a broken one: people may have pinned it.
    """
    file = home / name
    try:
        if file.exists():
            seed = file.read_bytes()
            if len(seed) != SEED_BYTES:
                raise HomeError(f"{file} is not an identity; restore it from a copy, or move it away to get a new one.")
            return Identity.from_bytes(seed)
        identity = Identity.generate()
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(identity.to_bytes())
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(beside, file)  # the first of two that start at once wins, and both use its identity
        except FileExistsError:
            return Identity.from_bytes(file.read_bytes())
        finally:
            beside.unlink()
    except OSError as error:
        raise HomeError(f"The state directory {home} cannot be used: {error.strerror}.") from error
    return identity


class CardNumbers:
    """The number of the last card, kept in `home`: after a restart with the clock set back, the next card must still
    be newer than those that relays and clients remember. Never raises: a disk that is full must not stop a node."""

    def __init__(self, home: Path) -> None:
        self._file = home / "card-number"

    def last(self) -> int:
        """The highest number that was noted; 0 where there is none, or none that can be read."""
        try:
            return max(0, int(self._file.read_text(encoding="ascii")[:32]))
        except (OSError, ValueError):
            return 0

    def note(self, number: int) -> None:
        """Remember a number that was used."""
        beside = self._file.with_name(f".{self._file.name}.{secrets.token_hex(4)}")
        try:
            beside.write_text(f"{number}\n", encoding="ascii")
            beside.replace(self._file)
        except OSError:
            _log.warning("card_number_not_kept", file=str(self._file))
            with suppress(OSError):
                beside.unlink()

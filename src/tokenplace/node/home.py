"""What a node keeps on disk: its identity, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tokenplace.errors import TokenPlaceError
from tokenplace.sealing.identity import SEED_BYTES, Identity


class HomeError(TokenPlaceError):
    """The node's state directory cannot be used."""

    code = "state_unusable"


def load_identity(home: Path) -> Identity:
    """The identity in `home`, made at the first start (file mode 0600). Raises HomeError.

    An identity is never made anew over a broken one: people may have pinned it.
    """
    file = home / "node-identity"
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

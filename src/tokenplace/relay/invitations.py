"""Invitations: who may serve at a relay that does not take everybody.

A file holds them, changed by `tokenplace relay invite` and read by running relays. A token is 32 random bytes, so that
one SHA-256 of it is all that needs keeping: there is nothing to guess. Revoked ones stay in the file, because a relay
that once asked for invitations must not open its door when the last one is withdrawn.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tokenplace.errors import TokenPlaceError

_PREFIX = "tpi_"
_FORMAT = 1


class BadInvitations(TokenPlaceError):
    """The file of invitations cannot be used."""

    code = "bad_invitations"


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation as it is kept. Times are unix seconds."""

    id: str
    label: str
    digest: str
    """SHA-256 of the token, in hex."""
    created: int
    expires: int | None = None
    revoked: int | None = None

    def holds(self, now: float) -> bool:
        """Whether it lets a node in at this time."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def state(self, now: float) -> str:
        """For people: valid, expired or revoked."""
        return "revoked" if self.revoked is not None else "valid" if self.holds(now) else "expired"


Book = Mapping[str, Invitation]
"""Invitations by the digest of their token."""


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def parse_book(text: str) -> Book:
    """A file's invitations. Raises BadInvitations."""
    try:
        content = json.loads(text)
        if content["format"] != _FORMAT:
            raise BadInvitations(f"The file of invitations is of another version ({content['format']!r:.20}).")
        read = [Invitation(**fields) for fields in content["invitations"]]
        if not all(map(_sound, read)):
            raise BadInvitations("The file of invitations has a field of the wrong type.")
    except (ValueError, KeyError, TypeError) as error:
        raise BadInvitations(f"The file of invitations cannot be read: {error}") from None
    return {each.digest: each for each in read}


def _sound(each: Invitation) -> bool:
    words = (each.id, each.label, each.digest)
    times = (each.created, each.expires or 0, each.revoked or 0)
    return all(isinstance(word, str) for word in words) and all(isinstance(moment, int) for moment in times)


class InvitationFile:
    """The file, for whoever makes and withdraws invitations. Two may do so at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Invitation]:
        """All of them, oldest first. Raises BadInvitations."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise BadInvitations(f"{self.path} cannot be read: {error}") from None
        return sorted(parse_book(text).values(), key=lambda each: each.created)

    def create(self, label: str, now: int, expires: int | None = None) -> tuple[Invitation, str]:
        """A new one; gives the token too, which is told once and kept nowhere. Raises BadInvitations."""
        token = _PREFIX + secrets.token_urlsafe(32)
        with self._changing() as kept:
            made = Invitation(_fresh_id(kept), label, digest_of(token), now, expires)
            kept.append(made)
        return made, token

    def revoke(self, name: str, now: int) -> Invitation:
        """Withdraw one by its id. Raises BadInvitations when there is no such one."""
        with self._changing() as kept:
            for place, each in enumerate(kept):
                if each.id == name:
                    kept[place] = each if each.revoked is not None else replace(each, revoked=now)
                    return kept[place]
            raise BadInvitations(f"There is no invitation {name[:60]!r}; `tokenplace relay invite list` shows them.")

    @contextmanager
    def _changing(self) -> Iterator[list[Invitation]]:
        """The invitations, written back when the block ends well, while nobody else changes them."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _locked(self.path.with_name(f".{self.path.name}.lock")):
                kept = self.read()
                yield kept
                self._write(kept)
        except OSError as error:
            raise BadInvitations(f"{self.path} cannot be written: {error.strerror}") from error

    def _write(self, kept: list[Invitation]) -> None:
        content = {"format": _FORMAT, "invitations": [asdict(each) for each in kept]}
        beside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as out:
                json.dump(content, out, indent=1)
                out.write("\n")
                out.flush()
                os.fsync(out.fileno())
            beside.replace(self.path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def _fresh_id(kept: list[Invitation]) -> str:
    taken = {each.id for each in kept}
    while (name := secrets.token_hex(4)) in taken:
        pass
    return name


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all processes of this machine. The system lets go of it if we die."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


try:
    import fcntl
except ModuleNotFoundError:  # Windows
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]

else:

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

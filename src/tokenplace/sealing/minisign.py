"""minisign's files: public keys, signatures, and secret keys under a password.

The format is that of https://jedisct1.github.io/minisign/ . Everything is Ed25519 (RFC 8032); a signature of kind `ED`
is over the BLAKE2b-512 of the file, one of kind `Ed` over the file itself. A second signature covers the first and the
trusted comment. Secret keys are masked with scrypt (RFC 7914) at libsodium's cost parameters.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tokenplace.errors import SignatureError

WHOLE: Final = b"Ed"
HASHED: Final = b"ED"

_SCRYPT, _NO_KDF, _BLAKE2B = b"Sc", b"\0\0", b"B2"
_UNTRUSTED, _TRUSTED = "untrusted comment: ", "trusted comment: "
_SECRET_BYTES = 104
_MOST_COMMENT = 8192

SENSITIVE: Final = (1 << 25, 1 << 30)
"""minisign's own cost of a password: operations, and bytes of memory (1 GiB, seconds)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key (32 bytes). `key_id` is minisign's (8 bytes), empty for a key that has none."""

    key: bytes
    key_id: bytes = b""

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """The key in minisign's file, or in its one line that begins with RW. Raises SignatureError."""
        raw = _unpacked(text.strip().splitlines()[-1] if text.strip() else "", 42, "public key")
        if raw[:2] != WHOLE:
            raise SignatureError("This public key is of a kind that is not known here.")
        return cls(key=raw[10:], key_id=raw[2:10])

    @property
    def text(self) -> str:
        """minisign's file of this key."""
        body = _packed(WHOLE + self.key_id + self.key)
        return f"{_UNTRUSTED}minisign public key {shown(self.key_id)}\n{body}\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature file. `hashed`: over the BLAKE2b-512 of the file, not over the file itself."""

    key_id: bytes
    signature: bytes
    hashed: bool
    trusted_comment: str
    global_signature: bytes

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Raises SignatureError."""
        lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        if len(lines) != 4 or not lines[0].startswith(_UNTRUSTED) or not lines[2].startswith(_TRUSTED):
            raise SignatureError("This is not a signature of minisign: four lines, two of them comments.")
        raw = _unpacked(lines[1], 74, "signature")
        if raw[:2] not in (WHOLE, HASHED):
            raise SignatureError("This signature is of a kind that is not known here.")
        return cls(
            key_id=raw[2:10],
            signature=raw[10:],
            hashed=raw[:2] == HASHED,
            trusted_comment=lines[2].removeprefix(_TRUSTED),
            global_signature=_unpacked(lines[3], 64, "signature of the comment"),
        )

    @property
    def text(self) -> str:
        """minisign's file of this signature."""
        body = _packed((HASHED if self.hashed else WHOLE) + self.key_id + self.signature)
        return (
            f"{_UNTRUSTED}signature from tokenplace secret key\n{body}\n"
            f"{_TRUSTED}{self.trusted_comment}\n{_packed(self.global_signature)}\n"
        )

    @property
    def globally_signed(self) -> bytes:
        """What the second signature is over."""
        return self.signature + self.trusted_comment.encode()


class SecretKey:
    """A signing key: an Ed25519 seed (32 bytes) and minisign's id for it (8 bytes)."""

    __slots__ = ("_key", "_seed", "public")

    def __init__(self, seed: bytes, key_id: bytes) -> None:
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(self._key.public_key().public_bytes_raw(), key_id)

    def __repr__(self) -> str:
        return f"<SecretKey {shown(self.public.key_id)}>"

    @classmethod
    def generate(cls, *, random: Callable[[int], bytes] = os.urandom) -> SecretKey:
        """A new key."""
        return cls(random(32), random(8))

    def sign(self, hashed: bytes, trusted_comment: str) -> Signature:
        """The signature over a file of which `hashed` is the BLAKE2b-512. Raises SignatureError for a bad comment."""
        if not trusted_comment.replace("\t", "").isprintable() or len(trusted_comment.encode()) > _MOST_COMMENT:
            raise SignatureError("A comment is one line of at most 8192 bytes.")
        signature = self._key.sign(hashed)
        whole = self._key.sign(signature + trusted_comment.encode())
        return Signature(
            self.public.key_id, signature, hashed=True, trusted_comment=trusted_comment, global_signature=whole
        )

    def sign_plain(self, message: bytes) -> bytes:
        """64 bytes over a whole file, for the original's format."""
        return self._key.sign(message)

    def to_text(
        self, password: str | None, cost: tuple[int, int] = SENSITIVE, *, random: Callable[[int], bytes] = os.urandom
    ) -> str:
        """minisign's file of this key; without a password it lies open in it."""
        salt = random(32)
        inner = self.public.key_id + self._seed + self.public.key
        inner += _checksum(inner)
        if password is None:
            kind, salt, cost = _NO_KDF, bytes(32), (0, 0)
        else:
            kind = _SCRYPT
            inner = _masked(inner, password, salt, cost)
        numbers = b"".join(number.to_bytes(8, "little") for number in cost)
        body = _packed(WHOLE + kind + _BLAKE2B + salt + numbers + inner)
        return f"{_UNTRUSTED}minisign {'' if password is None else 'encrypted '}secret key\n{body}\n"

    @classmethod
    def parse(cls, text: str, password: Callable[[], str]) -> SecretKey:
        """The key in minisign's file; `password` is called when it has one. Raises SignatureError."""
        raw = _unpacked(text.strip().splitlines()[-1] if text.strip() else "", 158, "secret key")
        kind, salt = raw[2:4], raw[6:38]
        cost = int.from_bytes(raw[38:46], "little"), int.from_bytes(raw[46:54], "little")
        inner = raw[54:]
        if raw[:2] != WHOLE or raw[4:6] != _BLAKE2B or kind not in (_SCRYPT, _NO_KDF):
            raise SignatureError("This secret key is of a kind that is not known here.")
        if kind == _SCRYPT:
            inner = _masked(inner, password(), salt, cost)
        # minisign writes no checksum into a key without a password
        if kind == _SCRYPT and not hmac.compare_digest(inner[72:], _checksum(inner[:72])):
            raise SignatureError("The password is wrong, or the secret key is damaged.")
        key = cls(inner[8:40], inner[:8])
        if key.public.key != inner[40:72]:
            raise SignatureError("The secret key is damaged.")
        return key


def shown(key_id: bytes) -> str:
    """A key's id as minisign prints it."""
    return key_id[::-1].hex().upper()


def _checksum(inner: bytes) -> bytes:
    return hashlib.blake2b(WHOLE + inner, digest_size=32).digest()


def _masked(inner: bytes, password: str, salt: bytes, cost: tuple[int, int]) -> bytes:
    n, r, p = _scrypt_parameters(*cost)
    room = 128 * r * (n + p + 2) + (1 << 16)  # what OpenSSL needs, and no more
    try:
        stream = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=room, dklen=_SECRET_BYTES)
    except (ValueError, MemoryError):
        raise SignatureError(f"This machine has no {room >> 20} MiB of memory for the key's password.") from None
    return bytes(left ^ right for left, right in zip(inner, stream, strict=True))


def _scrypt_parameters(operations: int, memory: int) -> tuple[int, int, int]:
    """scrypt's n, r and p as libsodium picks them. Raises SignatureError for a cost that nobody can pay."""
    r = 8
    operations = max(operations, 32768)
    if operations > 1 << 32 or memory > 1 << 32:
        raise SignatureError("The secret key asks for more memory than it should; it is damaged.")
    if operations < memory // 32:
        most = operations // (r * 4)
        return _power(most), r, 1
    n = _power(memory // (r * 128))
    return n, r, max(1, min(operations // 4 // n, 0x3FFFFFFF) // r)


def _power(most: int) -> int:
    """The smallest power of two, from 2 on, that is more than half of `most`."""
    n = 2
    while n <= most // 2:
        n *= 2
    return n


def _packed(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unpacked(text: str, length: int, what: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raise SignatureError(f"This is no {what} of minisign: it is not base64.") from None
    if len(raw) != length:
        raise SignatureError(f"This is no {what} of minisign: {len(raw)} bytes in place of {length}.")
    return raw

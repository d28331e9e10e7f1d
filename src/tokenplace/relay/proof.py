"""Checks node signatures with libsodium, so that the relay needs no library that could open content."""

from __future__ import annotations

from nacl.exceptions import BadSignatureError
from nacl.exceptions import ValueError as NaclValueError
from nacl.signing import VerifyKey


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (64 bytes, Ed25519, RFC 8032) over `message` is by `public` (32 bytes)."""
    try:
        VerifyKey(public).verify(message, signature)
    except (BadSignatureError, NaclValueError):
        return False
    return True

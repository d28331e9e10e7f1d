"""Signatures over files: minisign's, and the original's (base64 of 64 bytes, with a PEM key).

Both are Ed25519. Which of them a file or a key is, it says itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tokenplace.errors import SignatureError, WrongSignature
from tokenplace.sealing.identity import verify
from tokenplace.sealing.minisign import PublicKey, Signature, shown


@dataclass(frozen=True, slots=True)
class Checked:
    """A good signature. `trusted_comment` is what minisign's signer said along with it."""

    trusted_comment: str | None = None


def read_public_key(text: str) -> PublicKey:
    """A PEM (SPKI) key of Ed25519, or minisign's. Raises SignatureError."""
    if "-----BEGIN" not in text:
        return PublicKey.parse(text)
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError("The public key is not a PEM key that can be read.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError("The public key is not an Ed25519 key.")
    return PublicKey(key.public_bytes_raw())


def read_signature(text: str) -> Signature | bytes:
    """minisign's signature, or the original's as its 64 bytes. Raises SignatureError."""
    if text.startswith("untrusted comment:"):
        return Signature.parse(text)
    try:
        raw = base64.b64decode(text.removesuffix("\n").removesuffix("\r"), validate=True)
    except ValueError:
        raise SignatureError("The signature is neither minisign's nor base64.") from None
    if len(raw) != 64:
        raise SignatureError(f"The signature has {len(raw)} bytes in place of 64.")
    return raw


def check(key: PublicKey, signature: Signature | bytes, content: Iterable[bytes]) -> Checked:
    """Check a file, given piece by piece. Raises WrongSignature.

    A file under minisign's hashed signature is never in memory as a whole; the other two kinds need it there.
    """
    if isinstance(signature, bytes):
        if not verify(key.key, signature, b"".join(content)):
            raise WrongSignature
        return Checked()
    if key.key_id and key.key_id != signature.key_id:
        raise WrongSignature(
            f"Another key signed it: {shown(signature.key_id)}, not {shown(key.key_id)}; do not use it."
        )
    message = hash_of(content) if signature.hashed else b"".join(content)
    if not verify(key.key, signature.signature, message):
        raise WrongSignature
    if not verify(key.key, signature.global_signature, signature.globally_signed):
        raise WrongSignature("The file is what was signed, but the trusted comment was altered; do not use it.")
    return Checked(signature.trusted_comment)


def hash_of(content: Iterable[bytes]) -> bytes:
    """The BLAKE2b-512 that minisign signs."""
    whole = hashlib.blake2b()
    for piece in content:
        whole.update(piece)
    return whole.digest()


def plain_text(signature: bytes) -> str:
    """The original's signature file."""
    return base64.b64encode(signature).decode() + "\n"

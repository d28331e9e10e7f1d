"""The door to the library's HPKE (RFC 9180, base mode, single shot): raw bytes in, raw bytes out, our errors.

Both suites use HKDF-SHA256 and AES-256-GCM; they differ in the key encapsulation:

    Kem               public key                                private key
    X25519            32 bytes                                  32 bytes
    X25519_MLKEM768   ML-KEM-768 (1184) ‖ X25519 (32)           ML-KEM seed d ‖ z (64) ‖ X25519 (32)

0x647a is MLKEM768-X25519 of draft-ietf-hpke-pq: it holds as long as one of its two halves does. What the library
has is not written again here.
"""

from __future__ import annotations

from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from tokenplace.errors import Unopenable, WireError
from tokenplace.wire.request import Kem

Private: TypeAlias = X25519PrivateKey | MLKEM768X25519PrivateKey
Public: TypeAlias = X25519PublicKey | MLKEM768X25519PublicKey

PRIVATE_BYTES = {Kem.X25519: 32, Kem.X25519_MLKEM768: 96}
TAG_BYTES = 16
_MLKEM_SEED = 64
_MLKEM_PUBLIC = 1184

_SUITES = {
    Kem.X25519: Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    Kem.X25519_MLKEM768: Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}


def load_private(kem: Kem, raw: bytes) -> Private:
    """The library's key for raw private bytes; every string of the right length is one. Raises WireError."""
    if len(raw) != PRIVATE_BYTES[kem]:
        raise WireError(f"A private key for {kem.name} has {PRIVATE_BYTES[kem]} bytes; this one has {len(raw)}.")
    if kem is Kem.X25519:
        return X25519PrivateKey.from_private_bytes(raw)
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED]),
        X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED:]),
    )


def public_bytes(kem: Kem, raw: bytes) -> bytes:
    """The raw public key that belongs to raw private bytes. Raises WireError."""
    if len(raw) != PRIVATE_BYTES[kem]:
        raise WireError(f"A private key for {kem.name} has {PRIVATE_BYTES[kem]} bytes; this one has {len(raw)}.")
    if kem is Kem.X25519:
        return X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    mlkem = MLKEM768PrivateKey.from_seed_bytes(raw[:_MLKEM_SEED]).public_key().public_bytes_raw()
    return mlkem + X25519PrivateKey.from_private_bytes(raw[_MLKEM_SEED:]).public_key().public_bytes_raw()


def seal(kem: Kem, public: bytes, *, info: bytes, plaintext: bytes) -> bytes:
    """HPKE `enc ‖ ciphertext` for the owner of `public`; randomised, so never the same twice.

    `info` is authenticated and not sent. Raises WireError when `public` is not a key of this kind, among them the
    X25519 points of small order.
    """
    try:
        return _SUITES[kem].encrypt(plaintext, _load_public(kem, public), info=info)
    except ValueError:
        raise WireError(f"The node's sealing key is not a public key for {kem.name}.") from None


def unseal(kem: Kem, private: Private, *, info: bytes, sealed: bytes) -> bytes:
    """The plaintext of `seal`.

    Raises Unopenable, which says no more than that, for a wrong key, other `info` and altered bytes alike.
    """
    try:
        return _SUITES[kem].decrypt(sealed, private, info=info)
    except (InvalidTag, ValueError):  # these bytes are a stranger's: whatever the library says of them, the same
        raise Unopenable from None


def _load_public(kem: Kem, raw: bytes) -> Public:
    if kem is Kem.X25519:
        return X25519PublicKey.from_public_bytes(raw)
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC]),
        X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC:]),
    )

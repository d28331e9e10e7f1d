"""The open header of a sealed request, `application/vnd.tp.request`.

Everything before the HPKE bytes is authenticated by the seal (it is part of HPKE's `info`) and readable by the
relay, which needs the request id and nothing else. Big-endian, 40 bytes:

    0        1        2                 10       12       14       16                  32                40
    ┌────────┬────────┬─────────────────┬────────┬────────┬────────┬───────────────────┬─────────────────┐
    │version │ flags  │ key id (8)      │ kem    │ kdf    │ aead   │ request id (16)   │ unix ms (8)     │
    └────────┴────────┴─────────────────┴────────┴────────┴────────┴───────────────────┴─────────────────┘
    then HPKE enc ‖ ciphertext
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.ids import KEY_ID_BYTES, JobId, job_id_of
from tokenplace.wire.limits import MAX_REQUEST

CONTENT_TYPE = "application/vnd.tp.request"
VERSION = 2
INFO_PREFIX = b"tp/2 request\0"
_LAYOUT = struct.Struct(">BB8sHHH16sQ")
HEADER_BYTES = _LAYOUT.size


class Kem(IntEnum):
    """HPKE KEM identifiers (IANA HPKE registry)."""

    X25519 = 0x0020
    X25519_MLKEM768 = 0x647A

    @property
    def enc_bytes(self) -> int:
        """Length of HPKE's `enc` for this KEM."""
        return {Kem.X25519: 32, Kem.X25519_MLKEM768: 1120}[self]


KDF_HKDF_SHA256 = 0x0001
AEAD_AES_256_GCM = 0x0002
_AEAD_TAG = 16


def key_id_of(kem: Kem, public: bytes) -> bytes:
    """How a request names the key it is sealed to: SHA-256(kem id ‖ public key)[:8]."""
    return hashlib.sha256(kem.to_bytes(2, "big") + public).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """The readable part of a sealed request."""

    key_id: bytes
    kem: Kem
    request_id: bytes
    time_ms: int
    flags: int = 0

    @property
    def job(self) -> JobId:
        """The name of the job that this request becomes."""
        return job_id_of(self.request_id)

    def pack(self) -> bytes:
        """The 40 bytes on the wire."""
        return _LAYOUT.pack(
            VERSION,
            self.flags,
            self.key_id,
            self.kem,
            KDF_HKDF_SHA256,
            AEAD_AES_256_GCM,
            self.request_id,
            self.time_ms,
        )

    @classmethod
    def parse(cls, sealed: bytes) -> RequestHeader:
        """Read the header of a sealed request, and refuse what no node could open.

        Raises TooLarge, or WireError naming the field that is wrong.
        """
        if len(sealed) > MAX_REQUEST:
            raise TooLarge(f"A request may have {MAX_REQUEST} bytes; this one has {len(sealed)}.")
        if len(sealed) < HEADER_BYTES:
            raise WireError(f"A sealed request has at least {HEADER_BYTES} bytes; this one has {len(sealed)}.")
        version, flags, key_id, kem, kdf, aead, request_id, time_ms = _LAYOUT.unpack_from(sealed)
        if version != VERSION:
            raise WireError(f"This end speaks version {VERSION} of the sealed request, not {version}.")
        if flags:
            raise WireError(f"Flags {flags:#04x} mean nothing in version {VERSION}.")
        try:
            kem = Kem(kem)
        except ValueError:
            raise WireError(f"Key encapsulation {kem:#06x} is not one of ours.") from None
        if kdf != KDF_HKDF_SHA256:
            raise WireError(f"Key derivation {kdf:#06x} is not HKDF-SHA256.")
        if aead != AEAD_AES_256_GCM:
            raise WireError(f"Cipher {aead:#06x} is not AES-256-GCM.")
        if len(sealed) < HEADER_BYTES + kem.enc_bytes + _AEAD_TAG:
            raise WireError("The sealed request is cut short.")
        return cls(key_id=key_id, kem=kem, request_id=request_id, time_ms=time_ms, flags=flags)

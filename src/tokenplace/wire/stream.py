"""The answer on the wire, `application/vnd.tp.stream`: records, one after the other.

    ┌───────────────┬────────────┬──────────────────────┐
    │ length u32 BE │ kind u8    │ payload (length)     │
    └───────────────┴────────────┴──────────────────────┘

Kinds below 0x80 are sealed by the node for the client; the node's records are numbered from 0 in their order and a
resumed stream goes on at any number. Kinds from 0x80 are in the open: NONCE comes from the node just before record
0 (a salt, no secret); NOTICE and OUTCOME are the relay's own words, advice that nothing relies on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.limits import MAX_RECORD

CONTENT_TYPE = "application/vnd.tp.stream"
NONCE_BYTES = 32
PREFIX_BYTES = 5


class RecordKind(IntEnum):
    """What a record is."""

    HEAD = 0
    """Sealed: HTTP status and content type of the answer, as JSON."""
    DATA = 1
    """Sealed: the next bytes of the answer's body."""
    FINAL = 2
    """Sealed: the authenticated end, with usage as JSON."""
    ABORT = 3
    """Sealed: an authenticated error that ends the answer, as JSON."""
    NONCE = 0x80
    """Open: 32 bytes that freshen the answer's keys."""
    NOTICE = 0x81
    """Open: the relay's sign of life and queue position, as JSON."""
    OUTCOME = 0x82
    """Open: the relay's reason for ending without a sealed end, as JSON."""

    @property
    def sealed(self) -> bool:
        """Whether only the client can open it."""
        return self < 0x80


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it travels; `payload` is ciphertext for the sealed kinds."""

    kind: RecordKind
    payload: bytes

    def pack(self) -> bytes:
        """The record's bytes on the wire."""
        return len(self.payload).to_bytes(4, "big") + bytes((self.kind,)) + self.payload


class RecordSplitter:
    """Cuts a byte stream into records, however the bytes arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Record]:
        """Take more bytes, give the records that are now whole.

        Raises WireError for an unknown kind, TooLarge for a record beyond MAX_RECORD.
        """
        buffer = self._buffer
        buffer += data
        records: list[Record] = []
        start = 0
        while len(buffer) - start >= PREFIX_BYTES:
            length = int.from_bytes(buffer[start : start + 4], "big")
            if length > MAX_RECORD:
                raise TooLarge(f"A record may have {MAX_RECORD} bytes; this one claims {length}.")
            end = start + PREFIX_BYTES + length
            if end > len(buffer):
                break
            try:
                kind = RecordKind(buffer[start + 4])
            except ValueError:
                raise WireError(f"Record kind {buffer[start + 4]:#04x} is not one of ours.") from None
            records.append(Record(kind, bytes(buffer[start + PREFIX_BYTES : end])))
            start = end
        del buffer[:start]
        return records

    @property
    def pending(self) -> int:
        """Bytes of an unfinished record that wait for the rest."""
        return len(self._buffer)

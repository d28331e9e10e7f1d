"""The answer on the wire, `application/vnd.tp.stream`: records, one after the other.

    ┌───────────────┬────────────┬──────────────────────┐
    │ length u32 BE │ kind u8    │ payload (length)     │
    └───────────────┴────────────┴──────────────────────┘

Kinds below 0x80 are sealed by the node for the client; the node's records are numbered from 0 in their order and a
resumed stream goes on at any number. Kinds from 0x80 are in the open: NONCE comes from the node just before record
0 (a salt, no secret); NOTICE and OUTCOME are the relay's own words, advice that nothing relies on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.limits import MAX_RECORD

CONTENT_TYPE = "application/vnd.tp.stream"
NONCE_BYTES = 32
_PREFIX = struct.Struct(">IB")
PREFIX_BYTES = _PREFIX.size


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
    CLASSIC = 0x83
    """Open: the next bytes of an answer to a classic request; what is secret in it is in envelopes of its own."""

    @property
    def sealed(self) -> bool:
        """Whether only the client can open it."""
        return self < 0x80


_KINDS = {int(kind): kind for kind in RecordKind}


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it travels; `payload` is ciphertext for the sealed kinds."""

    kind: RecordKind
    payload: bytes

    def pack(self) -> bytes:
        """The record's bytes on the wire."""
        return len(self.payload).to_bytes(4, "big") + bytes((self.kind,)) + self.payload


class RecordSplitter:
    """Cuts a byte stream into records, however the bytes arrive: the same bytes give the same records at any cut.

    Bytes that are no record end it for good. The whole records before them are given first, and from then on every
    call raises.
    """

    __slots__ = ("_buffer", "_fault")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fault: tuple[type[WireError], str] | None = None

    def feed(self, data: bytes) -> list[Record]:
        """Take more bytes, give the records that are now whole.

        Raises WireError for an unknown kind and TooLarge for a record beyond MAX_RECORD, as soon as there is no
        whole record left to give before it; `finish` raises it when no more bytes come.
        """
        self._raise_fault()
        buffer = self._buffer
        buffer += data
        records: list[Record] = []
        start, have = 0, len(buffer)
        while have - start >= PREFIX_BYTES:
            length, number = _PREFIX.unpack_from(buffer, start)
            kind = _KINDS.get(number)
            if length > MAX_RECORD:
                self._fault = (TooLarge, f"A record may have {MAX_RECORD} bytes; this one claims {length}.")
                break
            if kind is None:
                self._fault = (WireError, f"Record kind {number:#04x} is not one of ours.")
                break
            body = start + PREFIX_BYTES
            end = body + length
            if end > have:
                break
            records.append(Record(kind, bytes(buffer[body:end])))
            start = end
        del buffer[:start]
        if self._fault is not None:
            buffer.clear()
            if not records:
                self._raise_fault()
        return records

    def finish(self) -> None:
        """Say that no more bytes will come. Raises what the last `feed` found behind the records it gave.

        A stream that ends inside a record (`pending`) is not malformed but cut short: `RecordOpener.finish` says so.
        """
        self._raise_fault()

    @property
    def pending(self) -> int:
        """Bytes of an unfinished record that wait for the rest."""
        return len(self._buffer)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            error, why = self._fault
            raise error(why)

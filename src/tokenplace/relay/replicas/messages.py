"""What replicas say to each other, as bytes. Big-endian:

    letter   ┌────────────┬──────────┬───────────┬─────────────┬────────────┬────────
             │ version u8 │ scope u8 │ sender 8B │ session u32 │ number u32 │ frames
             └────────────┴──────────┴───────────┴─────────────┴────────────┴────────
    frame    ┌─────────┬────────────┬────────────┬──────────────────┐
             │ kind u8 │ stream u32 │ length u32 │ payload (length) │
             └─────────┴────────────┴────────────┴──────────────────┘

`number` counts the letters of a session from 0, so that one that was lost is missed. A stream is named by the replica
that opened it, the one where the client is; 0 is the peer itself.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import Any, NamedTuple, NewType

from tokenplace.errors import WireError

ReplicaId = NewType("ReplicaId", str)
"""16 hex characters, new for every start of a relay."""

_VERSION = 1
_HEADER = struct.Struct(">BB8sII")
_FRAME = struct.Struct(">BII")


class To(IntEnum):
    """Whom a letter is for; each is numbered apart."""

    ALL = 1
    ONE = 2


class Kind(IntEnum):
    """What a frame says, and who says it."""

    BEAT = 1
    """Every replica to all, every second: I am here."""
    PRESENCE = 2
    """The nodes that are connected here, all or those that changed (JSON)."""
    ASK = 3
    """Tell me all of your nodes."""
    SYNCED = 4
    """That was all, as of this number of the letters to all (JSON)."""
    BYE = 5
    """I stop."""
    BROKEN = 6
    """Something of this session of yours (u32) did not arrive: whatever was open between us is over."""
    PULSE = 7
    """Nothing, numbered, so that a loss is noticed; with "?", by both."""
    SUBMIT = 16
    """Opener: a request follows in parts (JSON: node, linger, size, client)."""
    PART = 17
    """Opener: the next bytes of a sealed request."""
    ATTACH = 18
    """Opener: go on with a job (JSON: node, job, next, linger, client)."""
    CANCEL = 19
    """Opener: stop a job (JSON: node, job)."""
    TAKEN = 20
    """Opener: the client has taken so many bytes in all (u64)."""
    LEFT = 21
    """Opener: the client's connection is gone."""
    OPENED = 32
    """Owner: done, or the stream is open (JSON: step, position)."""
    REFUSED = 33
    """Owner: no (JSON: code, message, status, retry_after)."""
    DATA = 34
    """Owner: the next sealed records."""
    STATE = 35
    """Owner: where the job stands (JSON: step, position)."""
    ENDED = 36
    """Owner: nothing follows (JSON: code, message)."""
    GONE = 37
    """Owner: no such stream."""


class Frame(NamedTuple):
    """One frame, read."""

    kind: Kind
    stream: int
    payload: bytes


class Heard(NamedTuple):
    """One letter, read."""

    to: To
    sender: ReplicaId
    session: int
    number: int
    frames: list[Frame]


_KINDS = {int(kind): kind for kind in Kind}


def pack_frame(kind: Kind, stream: int = 0, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return _FRAME.pack(kind, stream, len(payload)) + payload


def pack_letter(to: To, sender: ReplicaId, session: int, number: int, frames: list[bytes]) -> bytes:
    """The bytes of a letter."""
    return _HEADER.pack(_VERSION, to, bytes.fromhex(sender), session, number) + b"".join(frames)


def parse_letter(data: bytes) -> Heard:
    """Read a letter. Raises WireError; frames of a kind we do not know are passed over."""
    if len(data) < _HEADER.size:
        raise WireError("A letter between replicas ends inside its header.")
    version, to, sender, session, number = _HEADER.unpack_from(data)
    if version != _VERSION or to not in (To.ALL, To.ONE):
        raise WireError("A letter between replicas is of another version; run the same release everywhere.")
    frames: list[Frame] = []
    start, end = _HEADER.size, len(data)
    while start < end:
        if end - start < _FRAME.size:
            raise WireError("A letter between replicas ends inside a frame's header.")
        kind, stream, length = _FRAME.unpack_from(data, start)
        start += _FRAME.size
        if end - start < length:
            raise WireError("A letter between replicas ends inside a frame.")
        if kind in _KINDS:
            frames.append(Frame(_KINDS[kind], stream, data[start : start + length]))
        start += length
    return Heard(To(to), ReplicaId(sender.hex()), session, number, frames)


def pack_fields(fields: dict[str, Any]) -> bytes:
    """A payload of fields."""
    return json.dumps(fields, separators=(",", ":")).encode()


def parse_fields(payload: bytes) -> dict[str, Any]:
    """Read a payload of fields. Raises WireError."""
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        raise WireError("A payload between replicas is JSON.") from None
    if not isinstance(fields, dict):
        raise WireError("A payload between replicas is a JSON object.")
    return fields

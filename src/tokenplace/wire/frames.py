"""Frames of the node link. Several may share one WebSocket message. Big-endian:

    ┌─────────┬──────────┬─────────┬─────────┬────────────┬───────────────────┐
    │ kind u8 │ flags u8 │ sid u32 │ seq u32 │ length u32 │ payload (length)  │
    └─────────┴──────────┴─────────┴─────────┴────────────┴───────────────────┘

`sid` names one offer on one link and is never used again there; 0 is the link itself. What `seq` counts depends on
the kind. Payloads are sealed bytes or, for control frames, small JSON.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import Any, NamedTuple

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.ids import Sid
from tokenplace.wire.limits import MAX_CONTROL, MAX_FRAME_PAYLOAD, MAX_FRAMES

_LAYOUT = struct.Struct(">BBIII")
HEADER_BYTES = _LAYOUT.size
CONTENT_TYPE = "application/vnd.tp.link"
"""Of a message of frames, where plain requests carry a link."""
MORE = 0x01
"""Flag of JOB: the sealed request goes on in the next JOB frame of this sid."""


class FrameKind(IntEnum):
    """What a frame says, who sends it, and what its `seq` counts."""

    CHALLENGE = 1
    """Relay: 32 random bytes to sign."""
    HELLO = 2
    """Node: its card, the signature over the challenge, its slots (JSON)."""
    WELCOME = 3
    """Relay: you are on (JSON)."""
    JOB = 4
    """Relay: a sealed request, or a part of it; seq counts the parts."""
    REWIND = 5
    """Relay: go on with that job (16 bytes) at record seq; u32: the credit to start with."""
    ACCEPT = 6
    """Node: this sid will carry records from seq on."""
    REJECT = 7
    """Node: this sid will carry nothing (JSON: code, message)."""
    DATA = 8
    """Node: record seq of the answer."""
    END = 9
    """Node: seq records in all, nothing follows (JSON: outcome)."""
    CREDIT = 10
    """Relay: on this sid seq bytes in all may be sent."""
    CANCEL = 11
    """Relay: nobody wants this job any more."""
    PROGRESS = 12
    """Node: nothing to send yet, but it works."""
    STATUS = 13
    """Node: what is free now (JSON); sid is the last offer it had seen."""
    PING = 14
    """Both: answer with the same payload."""
    PONG = 15
    """Both: the answer."""
    DRAIN = 16
    """Both: no new jobs from now on; what runs goes on."""


class Frame(NamedTuple):
    """One frame, parsed."""

    kind: FrameKind
    flags: int
    sid: int
    seq: int
    payload: bytes


_KINDS = {int(kind): kind for kind in FrameKind}


def pack_frame(kind: FrameKind, payload: bytes = b"", *, sid: int = 0, seq: int = 0, flags: int = 0) -> bytes:
    """The bytes of one frame. Raises TooLarge beyond MAX_FRAME_PAYLOAD."""
    if len(payload) > MAX_FRAME_PAYLOAD:
        raise TooLarge(f"A frame carries {MAX_FRAME_PAYLOAD} bytes, not {len(payload)}.")
    return _LAYOUT.pack(kind, flags, sid, seq, len(payload)) + payload


def split_frames(message: bytes) -> list[Frame]:
    """The frames of one WebSocket message. Raises WireError when it is not made of whole, known frames."""
    frames: list[Frame] = []
    start, end = 0, len(message)
    while start < end:
        if end - start < HEADER_BYTES:
            raise WireError("A link message ends inside a frame header.")
        kind, flags, sid, seq, length = _LAYOUT.unpack_from(message, start)
        start += HEADER_BYTES
        if length > MAX_FRAME_PAYLOAD:
            raise TooLarge(f"A frame carries {MAX_FRAME_PAYLOAD} bytes; this one claims {length}.")
        if end - start < length:
            raise WireError("A link message ends inside a frame.")
        known = _KINDS.get(kind)
        if known is None:
            raise WireError(f"Frame kind {kind} is not one of ours.")
        if len(frames) == MAX_FRAMES:
            raise WireError(f"A link message has at most {MAX_FRAMES} frames.")
        frames.append(Frame(known, flags, sid, seq, message[start : start + length]))
        start += length
    return frames


def lone_record(message: bytes) -> tuple[Sid, int, bytes] | None:
    """The sid, seq and payload of a message that is one DATA frame and nothing else, as nearly every one is.

    None for any other, which is for `split_frames` to read.
    """
    size = len(message) - HEADER_BYTES
    if size < 0 or message[0] != FrameKind.DATA:
        return None
    _, _, sid, seq, length = _LAYOUT.unpack_from(message)
    return (sid, seq, message[HEADER_BYTES:]) if length == size <= MAX_FRAME_PAYLOAD else None


def pack_control(fields: dict[str, Any]) -> bytes:
    """A control payload."""
    return json.dumps(fields, separators=(",", ":")).encode()


def parse_control(payload: bytes) -> dict[str, Any]:
    """Read a control payload. Raises WireError unless it is a JSON object within MAX_CONTROL."""
    if len(payload) > MAX_CONTROL:
        raise TooLarge(f"A control payload has at most {MAX_CONTROL} bytes.")
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        raise WireError("A control payload is JSON.") from None
    if not isinstance(fields, dict):
        raise WireError("A control payload is a JSON object.")
    return fields

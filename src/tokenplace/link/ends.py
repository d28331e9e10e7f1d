"""Both ends of the node link as state machines: bytes in, events out; commands in, bytes out. No clock, no socket.

What may follow what on one sid, seen alike from both ends:

    ── JOB… or REWIND ──▶ OFFERED ── ACCEPT ──▶ FLOWING ──┐ DATA, PROGRESS
                            │                    │  ▲─────┘
                            │ REJECT             │ END
                            ▼                    ▼
                          (gone)  ◀── CANCEL ─ (gone)

A sid is fresh per offer and never comes back. A frame for a sid that was used and is gone is stale, which is normal
(it crossed a CANCEL) and dropped; a frame for a sid that was never issued, out of turn, out of number or beyond the
credit is a violation, and the link is closed: at that point nothing the peer says can be trusted.

So is talk without end. What a stream brings is bounded by its credit, and what comes too late by what the credit had
left. Whatever else a peer may say (pings, what is free, signs of work) has an allowance far above what a node needs:
else one peer that talks would keep all others waiting.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeVar

from tokenplace.errors import LinkError, WireError
from tokenplace.link.allowance import Allowance
from tokenplace.link.events import (
    Accepted,
    Cancelled,
    Challenged,
    Drained,
    Ended,
    Granted,
    Introduced,
    NodeEvent,
    Offered,
    Piece,
    Ponged,
    Progressed,
    Rejected,
    RelayEvent,
    Reported,
    Rewound,
    Welcomed,
)
from tokenplace.wire.frames import (
    MORE,
    Frame,
    FrameKind,
    lone_record,
    pack_control,
    pack_frame,
    parse_control,
    split_frames,
)
from tokenplace.wire.ids import JOB_ID_BYTES, JobId, Sid
from tokenplace.wire.limits import CREDIT_WINDOW, JOB_CHUNK, MAX_FRAMES, MAX_MESSAGE, MAX_REQUEST, MAX_UNSENT_FRAMES
from tokenplace.wire.messages import Ending, Hello, Reason, Status

E = TypeVar("E")
CHALLENGE_BYTES = 32
_TALK = (4000.0, 1000.0)
"""Frames without a stream's credit: at once, and per second. A node that serves many relays tells each of them what is
free after every answer; its 64 streams show signs of work every five seconds."""

_TALK_BYTES = 128
"""A frame counts once for each so many bytes: a card in it costs a signature to check."""

_PING = struct.Struct(">d")
_REWIND = struct.Struct(f">{JOB_ID_BYTES}sI")


class Phase(StrEnum):
    """How far the introduction has come."""

    NEW = "new"
    CHALLENGED = "challenged"
    INTRODUCED = "introduced"
    LIVE = "live"


class _Stream:
    """One sid at the relay's end: who is next, how much came and how much may come."""

    __slots__ = ("allowed", "flowing", "next_record", "received")

    def __init__(self, next_record: int, allowed: int) -> None:
        self.next_record = next_record
        self.flowing = False
        self.received = 0
        self.allowed = allowed


class _End(ABC, Generic[E]):
    """What both ends share: the outbox, the pings, and the phase. `notify` is called when the outbox fills."""

    def __init__(self, notify: Callable[[], None] = lambda: None) -> None:
        self.phase = Phase.NEW
        self.last_heard = 0.0
        self.last_pinged = 0.0
        self._notify = notify
        self._out: list[bytes] = []
        self._talk = Allowance(*_TALK)

    def take(self) -> bytes:
        """What to send now as one message; at most MAX_MESSAGE and MAX_FRAMES, so call until it gives nothing."""
        out = self._out
        if len(out) == 1:
            message = out[0]
            out.clear()
            return message
        size = count = 0
        for frame in out[:MAX_FRAMES]:
            if count and size + len(frame) > MAX_MESSAGE:
                break
            size += len(frame)
            count += 1
        message = b"".join(out[:count])
        del out[:count]
        return message

    @property
    def clogged(self) -> bool:
        """Whether the peer has not read for so long that the link should be closed."""
        return len(self._out) > MAX_UNSENT_FRAMES

    def ping(self, now: float) -> None:
        """Ask for a sign of life."""
        self.last_pinged = now
        self._send(FrameKind.PING, _PING.pack(now))

    def drain(self) -> None:
        """Say that no new jobs are taken or given."""
        self._send(FrameKind.DRAIN)

    def _send(self, kind: FrameKind, payload: bytes = b"", *, sid: int = 0, seq: int = 0, flags: int = 0) -> None:
        if not self._out:
            self._notify()
        self._out.append(pack_frame(kind, payload, sid=sid, seq=seq, flags=flags))

    def receive(self, message: bytes, now: float) -> list[E]:
        """Read one message. Raises LinkError when the peer breaks the rules; then close the link."""
        if len(message) > MAX_MESSAGE:
            raise LinkError(f"A link message has at most {MAX_MESSAGE} bytes.")
        self.last_heard = now
        events: list[E] = []
        try:
            for frame in split_frames(message):
                event = self._read(frame, now)
                if event is not None:
                    events.append(event)
        except WireError as error:
            raise LinkError(error.message) from error
        return events

    @abstractmethod
    def _read(self, frame: Frame, now: float) -> E | None:
        """One frame as this end understands it."""

    def _bear(self, frame: Frame, now: float) -> None:
        """Something that no credit bounds. Raises LinkError when there is no end of it."""
        cost = 1 + len(frame.payload) // _TALK_BYTES
        if self._talk.left(now) < cost:
            raise LinkError(f"Too much talk: {frame.kind.name} frames without end.")
        self._talk.spend(now, cost)

    def _common(self, frame: Frame, now: float) -> Ponged | Drained | None:
        """Frames that mean the same at both ends. Raises LinkError for any other."""
        self._bear(frame, now)
        match frame.kind:
            case FrameKind.PING:
                self._send(FrameKind.PONG, frame.payload[: _PING.size])
                return None
            case FrameKind.PONG if len(frame.payload) == _PING.size:
                # Only our own latest ping: a peer's made-up time would become an endless or infinite round trip.
                asked: float = _PING.unpack(frame.payload)[0]
                return Ponged(max(0.0, now - asked)) if asked == self.last_pinged else None
            case FrameKind.DRAIN:
                return Drained()
        raise LinkError(f"A {frame.kind.name} frame has no place here.")


class RelayEnd(_End[RelayEvent]):
    """The relay's end of the link to one node."""

    def __init__(self, notify: Callable[[], None] = lambda: None) -> None:
        super().__init__(notify)
        self.last_sid = Sid(0)
        self._streams: dict[Sid, _Stream] = {}
        self._stale_bytes = 0
        """Records that may still come on streams that are gone: what their credit had left."""

    # -- commands --------------------------------------------------------------------------------------------------

    def challenge(self, nonce: bytes) -> None:
        """Open the conversation."""
        self.phase = Phase.CHALLENGED
        self._send(FrameKind.CHALLENGE, nonce)

    def welcome(self, relay: str) -> None:
        """Believe the node."""
        self.phase = Phase.LIVE
        self._send(FrameKind.WELCOME, pack_control({"relay": relay}))

    def offer(self, sealed: bytes) -> Sid:
        """Give the node a sealed request. The sid is fresh."""
        sid = self._open(0, CREDIT_WINDOW)
        last = max(0, len(sealed) - 1) // JOB_CHUNK
        for part in range(last + 1):
            chunk = sealed[part * JOB_CHUNK : (part + 1) * JOB_CHUNK]
            self._send(FrameKind.JOB, chunk, sid=sid, seq=part, flags=MORE if part < last else 0)
        return sid

    def rewind(self, job: JobId, next_record: int, allowed: int) -> Sid:
        """Ask the node to go on with a job it holds, from `next_record`, with `allowed` bytes of credit to start.

        The sid is fresh.
        """
        sid = self._open(next_record, allowed)
        self._send(FrameKind.REWIND, _REWIND.pack(bytes.fromhex(job), allowed), sid=sid, seq=next_record)
        return sid

    def grant(self, sid: Sid, total: int) -> None:
        """Let the node send `total` bytes in all on this sid."""
        stream = self._streams.get(sid)
        if stream is not None and total > stream.allowed:
            stream.allowed = total
            self._send(FrameKind.CREDIT, sid=sid, seq=total)

    def cancel(self, sid: Sid) -> None:
        """Tell the node that nobody wants this any more; what still comes is stale."""
        if self._drop(sid):
            self._send(FrameKind.CANCEL, sid=sid)

    def forget(self, sid: Sid) -> None:
        """Drop a sid without a word (its job goes on under another)."""
        self._drop(sid)

    def _drop(self, sid: Sid) -> bool:
        stream = self._streams.pop(sid, None)
        if stream is None:
            return False
        self._stale_bytes += stream.allowed - stream.received
        return True

    def _open(self, next_record: int, allowed: int) -> Sid:
        if self.phase is not Phase.LIVE:
            raise LinkError("No offers before the welcome.")
        self.last_sid = Sid(self.last_sid + 1)
        self._streams[self.last_sid] = _Stream(next_record, allowed)
        return self.last_sid

    # -- bytes in --------------------------------------------------------------------------------------------------

    def receive(self, message: bytes, now: float) -> list[RelayEvent]:
        """As of both ends. A record alone, as nearly every message is, takes no detour over frames."""
        alone = lone_record(message)
        if alone is None:
            return super().receive(message, now)
        self.last_heard = now
        piece = self._data(*alone)
        return [] if piece is None else [piece]

    def _read(self, frame: Frame, now: float) -> RelayEvent | None:
        kind = frame.kind
        if kind is FrameKind.DATA:
            return self._data(Sid(frame.sid), frame.seq, frame.payload)
        if self.phase is Phase.CHALLENGED and kind is FrameKind.HELLO:
            self.phase = Phase.INTRODUCED
            return Introduced(Hello.parse(parse_control(frame.payload)))
        if self.phase is not Phase.LIVE:
            raise LinkError(f"A {kind.name} frame before the introduction.")
        match kind:
            case FrameKind.ACCEPT:
                if stream := self._stream(frame, now):
                    if stream.flowing or frame.seq != stream.next_record:
                        raise LinkError("An ACCEPT that does not fit its offer.")
                    stream.flowing = True
                    return Accepted(Sid(frame.sid), frame.seq)
            case FrameKind.REJECT:
                if stream := self._stream(frame, now):
                    if stream.flowing:
                        raise LinkError("A REJECT after the ACCEPT.")
                    del self._streams[Sid(frame.sid)]
                    return Rejected(Sid(frame.sid), Reason.parse(parse_control(frame.payload)))
            case FrameKind.END:
                if stream := self._stream(frame, now):
                    if not stream.flowing or frame.seq != stream.next_record:
                        raise LinkError(f"An END after {stream.next_record} records that claims {frame.seq}.")
                    del self._streams[Sid(frame.sid)]
                    return Ended(Sid(frame.sid), frame.seq, self._ending(frame))
            case FrameKind.PROGRESS:
                self._bear(frame, now)
                if stream := self._stream(frame, now):
                    if not stream.flowing:
                        raise LinkError("A PROGRESS before the ACCEPT.")
                    return Progressed(Sid(frame.sid))
            case FrameKind.STATUS:
                self._bear(frame, now)
                if frame.sid > self.last_sid:
                    raise LinkError("A STATUS that knows of an offer never made.")
                return Reported(Status.parse(parse_control(frame.payload)), Sid(frame.sid))
            case _:
                return self._common(frame, now)
        return None

    def _ending(self, frame: Frame) -> Ending:
        ending = Ending.parse(parse_control(frame.payload))
        if ending.seen > self.last_sid:
            raise LinkError("An END that knows of an offer never made.")
        return ending

    def _data(self, sid: Sid, number: int, record: bytes) -> Piece | None:
        size = len(record)
        if not size:
            raise LinkError("A record that carries nothing.")  # no credit would ever bound them
        stream = self._streams.get(sid)
        if stream is None:
            self._issued(sid, FrameKind.DATA)
            self._stale_bytes -= size
            if self._stale_bytes < 0:
                raise LinkError("More records of streams that are gone than their credit had left.")
            return None
        if not stream.flowing:
            raise LinkError("Records before the ACCEPT.")
        if number != stream.next_record:
            raise LinkError(f"Record {number} where {stream.next_record} is next.")
        stream.received += size
        if stream.received > stream.allowed:
            raise LinkError(f"{stream.received} bytes where {stream.allowed} were granted.")
        stream.next_record += 1
        return Piece(sid, number, record)

    def _stream(self, frame: Frame, now: float) -> _Stream | None:
        """The stream of a frame; None when it is gone."""
        stream = self._streams.get(Sid(frame.sid))
        if stream is None:
            self._issued(frame.sid, frame.kind)
            self._bear(frame, now)
        return stream

    def _issued(self, sid: int, kind: FrameKind) -> None:
        if not 0 < sid <= self.last_sid:
            raise LinkError(f"A {kind.name} frame for an offer that was never made.")


class NodeEnd(_End[NodeEvent]):
    """The node's end of the link to one relay."""

    def __init__(self, notify: Callable[[], None] = lambda: None) -> None:
        super().__init__(notify)
        self.seen = Sid(0)
        self._open: set[Sid] = set()
        self._partial: tuple[Sid, list[bytes], int] | None = None

    # -- commands --------------------------------------------------------------------------------------------------

    def hello(self, hello: Hello) -> None:
        """Answer the challenge."""
        self.phase = Phase.INTRODUCED
        self._send(FrameKind.HELLO, pack_control(hello.fields()))

    def accept(self, sid: Sid, next_record: int) -> None:
        """Take an offer; records follow from `next_record`."""
        if sid in self._open:
            self._send(FrameKind.ACCEPT, sid=sid, seq=next_record)

    def reject(self, sid: Sid, reason: Reason) -> None:
        """Decline an offer."""
        if sid in self._open:
            self._open.discard(sid)
            self._send(FrameKind.REJECT, pack_control(reason.fields()), sid=sid)

    def data(self, sid: Sid, number: int, record: bytes) -> None:
        """Send record `number`. The owner keeps to the credit."""
        if sid in self._open:
            self._send(FrameKind.DATA, record, sid=sid, seq=number)

    def end(self, sid: Sid, records: int, reason: Reason, free: int) -> None:
        """Say that everything was sent, and what is free now."""
        if sid in self._open:
            self._open.discard(sid)
            ending = Ending(reason, free, self.seen)
            self._send(FrameKind.END, pack_control(ending.fields()), sid=sid, seq=records)

    def progress(self, sid: Sid) -> None:
        """Say that work goes on."""
        if sid in self._open:
            self._send(FrameKind.PROGRESS, sid=sid)

    def status(self, status: Status) -> None:
        """Tell what is free."""
        self._send(FrameKind.STATUS, pack_control(status.fields()), sid=self.seen)

    # -- bytes in --------------------------------------------------------------------------------------------------

    def _read(self, frame: Frame, now: float) -> NodeEvent | None:
        sid = Sid(frame.sid)
        if self.phase is Phase.NEW:
            if frame.kind is not FrameKind.CHALLENGE or len(frame.payload) != CHALLENGE_BYTES:
                raise LinkError("A relay opens with its challenge.")
            self.phase = Phase.CHALLENGED
            return Challenged(frame.payload)
        if self.phase is Phase.INTRODUCED and frame.kind is FrameKind.WELCOME:
            self.phase = Phase.LIVE
            return Welcomed(str(parse_control(frame.payload).get("relay", ""))[:200])
        if self.phase is not Phase.LIVE:
            raise LinkError(f"A {frame.kind.name} frame before the welcome.")
        match frame.kind:
            case FrameKind.JOB:
                return self._job(frame)
            case FrameKind.REWIND:
                self._fresh(frame)
                if len(frame.payload) != _REWIND.size:
                    raise LinkError("A REWIND names its job and its credit in 20 bytes.")
                job, allowed = _REWIND.unpack(frame.payload)
                return Rewound(sid, JobId(job.hex()), frame.seq, allowed)
            case FrameKind.CREDIT:
                self._known(frame)
                return Granted(sid, frame.seq) if sid in self._open else None
            case FrameKind.CANCEL:
                self._known(frame)
                if self._partial is not None and self._partial[0] == sid:
                    self._partial = None
                self._open.discard(sid)
                return Cancelled(sid)  # also where our END or REJECT crossed it: the owner then says what is free
            case _:
                return self._common(frame, now)

    def _fresh(self, frame: Frame) -> None:
        if frame.sid != self.seen + 1:
            raise LinkError(f"Offer {frame.sid} where {self.seen + 1} is next.")
        self.seen = Sid(frame.sid)
        self._open.add(self.seen)

    def _known(self, frame: Frame) -> None:
        if not 0 < frame.sid <= self.seen:
            raise LinkError(f"A {frame.kind.name} frame for an offer that was never made.")

    def _job(self, frame: Frame) -> Offered | None:
        if self._partial is None:
            self._fresh(frame)
            parts: list[bytes] = []
            size = 0
        else:
            sid, parts, size = self._partial
            if sid != frame.sid:
                raise LinkError("The parts of two requests are mixed.")
        if frame.seq != len(parts):
            raise LinkError("The parts of a request are out of order.")
        if frame.flags & MORE and not frame.payload:
            raise LinkError("A part of a request that carries nothing.")
        parts.append(frame.payload)
        size += len(frame.payload)
        if size > MAX_REQUEST:
            raise LinkError(f"A request has at most {MAX_REQUEST} bytes.")
        if frame.flags & MORE:
            self._partial = (Sid(frame.sid), parts, size)
            return None
        self._partial = None
        return Offered(Sid(frame.sid), b"".join(parts))

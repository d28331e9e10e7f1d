"""What one replica says to another and hears from it: letters with numbers, so that a loss is a fact, no guess. Pure.

A session is a run of letters without a gap. Whoever misses one says BROKEN, and both ends drop whatever was open
between them and begin again: the node is the buffer, so dropped streams cost their clients a resume and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum, IntEnum

from tokenplace.relay.bus.base import Letter, Topic
from tokenplace.relay.replicas.messages import Kind, ReplicaId, To, pack_frame, pack_letter

ALL = Topic("all")
MAX_LETTER = 512 * 1024
"""Bytes of frames in one letter; a single frame is at most a part of a request."""

_U32 = struct.Struct(">I")


def topic_of(replica: ReplicaId) -> Topic:
    """Where one replica listens."""
    return Topic(f"one/{replica}")


class Verdict(Enum):
    """What a letter's numbers say."""

    NEXT = "next"
    """It is the one that was expected."""
    RENEWED = "renewed"
    """It begins a new session: what was open under the one before is over."""
    GAP = "gap"
    """Something before it was lost."""
    DEAD = "dead"
    """It belongs to a session that had its gap already."""
    STALE = "stale"
    """It was here before, or belongs to a session that is over."""


class Haste(IntEnum):
    """How soon something is to be said."""

    LATER = 0
    """It tells where something stands: whatever comes within a few milliseconds takes it along."""
    SOON = 1
    """One of many: gathered with others of its kind when there are many of them."""
    NOW = 2
    """Something begins, ends or is asked: somebody waits for it."""


class Sending:
    """What waits to be said to a topic, and the numbers it will get."""

    __slots__ = ("_frames", "_haste", "_notify", "_sender", "_to", "number", "session", "topic")

    def __init__(self, sender: ReplicaId, topic: Topic, session: int, notify: Callable[[Haste], None]) -> None:
        self.topic = topic
        self.session = session
        self.number = 0
        self._sender = sender
        self._to = To.ALL if topic == ALL else To.ONE
        self._notify = notify
        self._frames: list[bytes] = []
        self._haste: Haste | None = None

    def put(self, kind: Kind, stream: int = 0, payload: bytes = b"", haste: Haste = Haste.NOW) -> None:
        """Say something with the next letter."""
        self._frames.append(pack_frame(kind, stream, payload))
        if self._haste is None or haste > self._haste:
            self._haste = haste
            self._notify(haste)

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return len(self._frames)

    def renew(self, session: int) -> None:
        """Begin again: what waits belongs to what is over."""
        self.session = session
        self.number = 0
        self._empty()

    def take(self) -> list[Letter]:
        """What waits, in letters of at most MAX_LETTER."""
        if not self._frames:
            return []
        letters: list[Letter] = []
        batch: list[bytes] = []
        size = 0
        for frame in self._frames:
            if batch and size + len(frame) > MAX_LETTER:
                letters.append(self._letter(batch))
                batch, size = [], 0
            batch.append(frame)
            size += len(frame)
        letters.append(self._letter(batch))
        self._empty()
        return letters

    def _empty(self) -> None:
        self._frames.clear()
        self._haste = None

    def _letter(self, frames: list[bytes]) -> Letter:
        data = pack_letter(self._to, self._sender, self.session, self.number, frames)
        self.number += 1
        return Letter(self.topic, data)


class Hearing:
    """The numbers of what one peer says on one topic."""

    __slots__ = ("_expected", "session")

    def __init__(self) -> None:
        self.session = 0
        self._expected: int | None = 0

    def judge(self, session: int, number: int) -> Verdict:
        """Where a letter belongs."""
        if session < self.session:
            return Verdict.STALE
        renewed = False
        if session > self.session:
            renewed = self.session > 0 and self._expected is not None  # after a gap everything is over already
            self.session, self._expected = session, 0
        if self._expected is None:
            return Verdict.DEAD
        if number > self._expected:
            self._expected = None
            return Verdict.GAP
        if number < self._expected:
            return Verdict.STALE
        self._expected += 1
        return Verdict.RENEWED if renewed else Verdict.NEXT

    def settle(self, session: int, number: int) -> None:
        """What came before this number is known by other means."""
        self.session, self._expected = session, number


def pack_session(session: int) -> bytes:
    """For BROKEN."""
    return _U32.pack(session)


def parse_session(payload: bytes) -> int:
    """From BROKEN; 0, which is no session, when it cannot be read."""
    return int(_U32.unpack(payload)[0]) if len(payload) == _U32.size else 0

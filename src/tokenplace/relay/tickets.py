"""A ticket: one client's claim on one job at this relay, with the pieces that wait for the client."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from tokenplace.relay.jobs import Job, Step
from tokenplace.wire.ids import Sid
from tokenplace.wire.limits import CREDIT_STEP, CREDIT_WINDOW, Timing
from tokenplace.wire.messages import Outcome, Reason

INTERRUPTED = "interrupted"
"""How a stream ends whose way broke: without a word, so that its client comes back as after a broken connection."""


@dataclass(slots=True, eq=False)
class Ticket:
    """The live state around a job. Pieces are whole records, in order; at most a credit window of them."""

    job: Job
    linger: float
    """How long the job outlives the client's connection, in seconds."""
    next_record: int
    """The next record expected from the node."""
    since: float
    """When it entered its present step, or last showed progress in it."""
    created: float
    client: str = ""
    """Whose it is, for fair shares; never shown."""
    turn: int = 0
    """Its place on the clock of the node's queue."""
    begun: float = 0.0
    """When a node was given it; what came before was waiting."""
    sealed: bytes | None = None
    """Kept until the node's first record is here, to be offered again."""
    offered: bool = False
    """Whether a node has ever been shown the request."""
    counted: bool = False
    """Whether the relay took a free slot of the node off its count for it."""
    sid: Sid | None = None
    pieces: deque[bytes] = field(default_factory=deque)
    received_bytes: int = 0
    taken_bytes: int = 0
    passed_on: int = 0
    """What was taken under the sids before this one."""
    window: int = CREDIT_WINDOW
    granted: int = CREDIT_WINDOW
    taken_at: float = 0.0
    """When the client last took something, or something began to wait for it."""
    left_at: float | None = None
    """When the client's connection went, while the job lingers."""
    watched: float = inf
    """When it is to be looked at next."""
    returns: int = 0
    """How often its node came back to it without bringing anything."""
    ended: Reason | None = None
    hand: Callable[[bytes, float], bool] | None = None
    """The client's shell: take this now, if you can."""
    wake: Callable[[], None] | None = None
    """The client's shell: there is something to take. The shell that set it is the one that holds the ticket."""

    @property
    def fresh(self) -> bool:
        """Whether nobody has seen anything of its answer: this connection sees the job from its beginning."""
        return self.sealed is not None

    def call(self) -> None:
        """Wake the client's shell."""
        if self.wake is not None:
            self.wake()

    def put(self, piece: bytes, now: float) -> None:
        """A record for the client, who gets it at once where nothing waits before it."""
        if self.received_bytes == self.taken_bytes:
            self.taken_at = now
        self.received_bytes += len(piece)
        self.next_record += 1
        self.returns = 0
        self.since = now
        if self.hand is None or self.pieces or not self.hand(piece, now):
            self.pieces.append(piece)
            self.call()

    def take(self) -> bytes:
        """All that waits, in one piece; empty when nothing does."""
        pieces = self.pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    def taken(self, size: int, now: float) -> None:
        """The client's socket took `size` bytes."""
        self.taken_bytes += size
        self.taken_at = now

    def overslept(self, seconds: float) -> None:
        """The relay stood still for so long: that was nobody's silence."""
        self.since += seconds
        self.taken_at += seconds
        if self.left_at is not None:
            self.left_at += seconds

    @property
    def room(self) -> int:
        """What a fresh sid may send before the client takes more: the window, less what still waits here."""
        return max(0, CREDIT_WINDOW - (self.received_bytes - self.taken_bytes))

    def restart(self, sid: Sid, now: float) -> None:
        """Its records come under another sid from now on, with the room that `room` told for it."""
        self.sid = sid
        self.since = now
        self.begun = self.begun or now
        self.window = self.granted = self.room
        self.passed_on += self.taken_bytes
        self.received_bytes -= self.taken_bytes
        self.taken_bytes = 0

    def credit_due(self) -> int | None:
        """The new total to grant to the node, when it is worth a frame."""
        total = self.taken_bytes + self.window
        if total - self.granted < CREDIT_STEP:
            return None
        self.granted = total
        return total

    def due(self, timing: Timing) -> tuple[float, Outcome]:
        """When this ticket must end unless something happens, and how."""
        if self.left_at is not None:
            return self.left_at + self.linger, Outcome.CANCELLED
        match self.job.step:
            case Step.QUEUED:
                return self.since + timing.queue_wait, Outcome.QUEUE_TIMEOUT
            case Step.OFFERED:
                return self.since + timing.first_piece, Outcome.NO_PROGRESS
            case Step.SEVERED:
                grace = timing.return_grace_seen if self.next_record else timing.return_grace_unseen
                return self.since + grace, Outcome.NODE_LOST
        if self.received_bytes > self.taken_bytes:
            return self.taken_at + timing.reader_stall, Outcome.CLIENT_STALLED
        limit = timing.silent_job if self.next_record else timing.first_piece
        return self.since + limit, Outcome.NO_PROGRESS

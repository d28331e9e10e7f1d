"""Streams of clients here whose node is at another replica: the opener's side. Pure.

A client's connection holds an Errand as it would hold a ticket. The node's credit reaches from end to end: what the
client has not taken stays within one credit window, wherever on the way it waits.
"""

from __future__ import annotations

import itertools
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tokenplace.errors import (
    QueueFull,
    Refused,
    StoreUnavailable,
    WireError,
    refusal_kind,
)
from tokenplace.relay.jobs import Job, Step
from tokenplace.relay.replicas.messages import Frame, Kind, pack_fields, parse_fields
from tokenplace.relay.replicas.peers import Peer
from tokenplace.relay.replicas.wires import Haste
from tokenplace.relay.tickets import INTERRUPTED, Ticket
from tokenplace.wire.ids import JobId, NodeId
from tokenplace.wire.limits import CREDIT_STEP, JOB_CHUNK, MiB
from tokenplace.wire.messages import Outcome, Reason

MAX_UNANSWERED = 16 * MiB
"""Requests on their way to one replica: what the store buffers for a slow listener is bounded too."""

_TOTAL = struct.Struct(">Q")


@dataclass(slots=True, eq=False)
class Errand(Ticket):
    """One stream, or one question, that another replica serves."""

    peer: Peer | None = None
    stream: int = 0
    once: bool = False
    """A question: its answer is all there is to it."""
    upload: int = 0
    opened: bool = False
    refusal: Refused | None = None
    answered: Callable[[], None] | None = None
    """Called once it is open, refused or lost."""
    told: int = 0
    """How much the owner knows to be taken."""
    place: int = 0

    @property
    def fresh(self) -> bool:
        """Whether it was opened by a request, and not by coming back to one."""
        return bool(self.created)

    @property
    def pending(self) -> bool:
        """Whether its owner has not answered yet."""
        return not self.opened and self.refusal is None


class Errands:
    """All streams that this replica has opened at others."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._numbers = itertools.count(1)

    # -- what clients want -----------------------------------------------------------------------------------------

    def submit(
        self, peer: Peer, job: JobId, sealed: bytes, node: NodeId, linger: float, client: str, now: float
    ) -> Errand:
        """Send a request to where its node is. Raises QueueFull when too many are on their way."""
        if peer.unanswered and peer.unanswered + len(sealed) > MAX_UNANSWERED:
            raise QueueFull("Too many requests are on their way to the relay that holds this node.", retry_after=1)
        fields = {"node": node, "linger": linger, "size": len(sealed), "client": client}
        errand = self._open(peer, Kind.SUBMIT, job, node, fields)
        errand.created = now
        errand.upload = len(sealed)
        peer.unanswered += errand.upload
        for start in range(0, len(sealed), JOB_CHUNK):
            peer.out.put(Kind.PART, errand.stream, sealed[start : start + JOB_CHUNK])
        self.counts["submit"] += 1
        return errand

    def attach(self, peer: Peer, job: JobId, node: NodeId, next_record: int, linger: float, client: str) -> Errand:
        """Go on with a job where its node is."""
        self.counts["attach"] += 1
        fields = {"node": node, "job": job, "next": next_record, "linger": linger, "client": client}
        return self._open(peer, Kind.ATTACH, job, node, fields)

    def cancel(self, peer: Peer, job: JobId, node: NodeId) -> Errand:
        """Stop a job where its node is."""
        self.counts["cancel"] += 1
        errand = self._open(peer, Kind.CANCEL, job, node, {"node": node, "job": job})
        errand.once = True
        return errand

    def _open(self, peer: Peer, kind: Kind, job: JobId, node: NodeId, fields: dict[str, Any]) -> Errand:
        stream = next(self._numbers)
        errand = Errand(job=Job(job, node), linger=0.0, next_record=0, since=0.0, created=0.0, peer=peer, stream=stream)
        peer.errands[stream] = errand
        peer.out.put(kind, stream, pack_fields(fields))
        return errand

    def taken(self, errand: Errand, size: int, now: float) -> None:
        """The client's socket took so many bytes."""
        errand.taken(size, now)
        if errand.taken_bytes - errand.told >= CREDIT_STEP:
            self._tell_taken(errand)

    def leave(self, errand: Errand) -> None:
        """The client is gone, or waits no longer for an answer."""
        errand.wake = None
        peer = errand.peer
        if peer is not None and peer.errands.pop(errand.stream, None) is not None:
            _arrived(errand)
            peer.out.put(Kind.LEFT, errand.stream)

    def flush(self, peer: Peer) -> None:
        """Now and then: what was taken but not told yet. The node's reader counts as stalled otherwise."""
        for errand in peer.errands.values():
            if errand.taken_bytes > errand.told:
                self._tell_taken(errand)

    def _tell_taken(self, errand: Errand) -> None:
        if errand.peer is not None and errand.stream in errand.peer.errands:
            errand.told = errand.taken_bytes
            errand.peer.out.put(Kind.TAKEN, errand.stream, _TOTAL.pack(errand.taken_bytes), Haste.SOON)

    # -- what the owner says ---------------------------------------------------------------------------------------

    def hear(self, peer: Peer, frame: Frame, now: float) -> None:
        """A frame of the owner. Raises WireError."""
        errand = peer.errands.get(frame.stream)
        if errand is None:
            if frame.kind in (Kind.OPENED, Kind.DATA):
                peer.out.put(Kind.LEFT, frame.stream)  # we gave up on it, and the owner has not heard that
            return
        match frame.kind:
            case Kind.DATA:
                errand.put(frame.payload, now)
            case Kind.STATE:
                _stand(errand, frame.payload, now)
                errand.call()
            case Kind.OPENED:
                _stand(errand, frame.payload, now)
                errand.opened = True
                if errand.once:
                    del peer.errands[frame.stream]
                _answer(errand)
            case Kind.REFUSED:
                del peer.errands[frame.stream]
                if errand.pending:
                    errand.refusal = _refusal(frame.payload)
                    _answer(errand)
                else:
                    self._lose(errand)
            case Kind.ENDED:
                del peer.errands[frame.stream]
                reason = Reason.parse(parse_fields(frame.payload))
                if reason.code == Outcome.RELAY_STOPPED:  # that one is gone, this one is not: come back here
                    reason = Reason(INTERRUPTED)
                _end(errand, reason)
            case Kind.GONE:
                del peer.errands[frame.stream]
                self._lose(errand)

    def drop(self, peer: Peer) -> None:
        """The way to a peer broke: every stream over it ends as a broken connection does."""
        errands = list(peer.errands.values())
        peer.errands.clear()
        for errand in errands:
            self._lose(errand)

    def _lose(self, errand: Errand) -> None:
        self.counts["lost"] += 1
        if errand.pending:
            errand.refusal = StoreUnavailable(
                "The way to the relay that holds this node broke; try again.", retry_after=1
            )
            _answer(errand)
        else:
            _end(errand, Reason(INTERRUPTED))


def parse_total(payload: bytes) -> int:
    """From TAKEN. Raises WireError."""
    if len(payload) != _TOTAL.size:
        raise WireError("What was taken is told in eight bytes.")
    return int(_TOTAL.unpack(payload)[0])


def _stand(errand: Errand, payload: bytes, now: float) -> None:
    fields = parse_fields(payload)
    try:
        errand.job = Job(errand.job.id, errand.job.node, Step(fields.get("step", errand.job.step)))
        errand.place = int(fields.get("position", 0))
        if errand.job.step is not Step.QUEUED:
            errand.begun = errand.begun or now
    except (TypeError, ValueError):
        raise WireError("This is not where a job can stand.") from None


def _arrived(errand: Errand) -> None:
    """Its request waits on the bus no longer."""
    if errand.peer is not None:
        errand.peer.unanswered -= errand.upload
    errand.upload = 0


def _answer(errand: Errand) -> None:
    _arrived(errand)
    answered, errand.answered = errand.answered, None
    if answered is not None:
        answered()


def _end(errand: Errand, reason: Reason) -> None:
    errand.ended = reason
    errand.call()


def _refusal(payload: bytes) -> Refused:
    fields = parse_fields(payload)
    code, status, wait = str(fields.get("code")), fields.get("status"), fields.get("retry_after")
    return refusal_kind(code)(
        str(fields.get("message")),
        code=code,
        status=status if isinstance(status, int) else HTTPStatus.BAD_GATEWAY,
        retry_after=float(wait) if isinstance(wait, int | float) else None,
    )

"""The answers a node is giving, and keeps for a while: the node is the buffer. Pure: no clock, no socket.

A run belongs to a job, not to a link. It is attached to one offer (link, sid) at a time; when that link breaks it
goes on as an orphan until any relay asks to rewind it. Its records are kept until half a minute after its end, so
a client that lost its connection or its relay goes on anywhere this node is connected, each record exactly once.

    start ──▶ attached ◀──rewind── orphan ──(30 s)──▶ stopped
                 │  └──link lost───▶ │
                 └────finish─────────┴──▶ finished ──(30 s)──▶ forgotten
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tokenplace.errors import Refused, SealError, WireError
from tokenplace.link.ends import NodeEnd
from tokenplace.link.events import Offered, Rewound
from tokenplace.wire.classic import job_of
from tokenplace.wire.ids import JobId, Sid
from tokenplace.wire.limits import CREDIT_WINDOW, RUN_BUFFER, Timing
from tokenplace.wire.messages import Outcome, Reason, Status

KEPT_RUNS = 4096
KEPT_BYTES = 64 * 1024 * 1024
"""Finished answers kept in all: the oldest go first when there are more."""

_STOPPING = "This node is stopping; another one can answer."


@dataclass(slots=True, eq=False)
class Attachment:
    """Where a run's records go at the moment."""

    end: NodeEnd
    sid: Sid
    next_record: int
    allowed: int
    sent_bytes: int = 0


@dataclass(slots=True, eq=False)
class Run:
    """One job's answer at the node."""

    job: JobId
    digest: bytes
    records: deque[bytes] = field(default_factory=deque)
    first_kept: int = 0
    kept_bytes: int = 0
    attached: Attachment | None = None
    ended: Reason | None = None
    last_sent: float = 0.0
    since: float = 0.0
    """When it became an orphan, or finished."""
    holds_slot: bool = True
    on_room: Callable[[], None] | None = None
    """Called when there may be room again; the worker's way to wait."""

    @property
    def count(self) -> int:
        """Records made so far."""
        return self.first_kept + len(self.records)

    @property
    def has_room(self) -> bool:
        """Whether the worker may push more: a slow reader slows the node instead of filling its memory."""
        start = self.attached.next_record if self.attached else self.first_kept
        unsent = self.kept_bytes if start <= self.first_kept else self._bytes_from(start)
        return unsent < CREDIT_WINDOW

    def _bytes_from(self, number: int) -> int:
        ahead = self.count - number
        if ahead <= 0:
            return 0
        size = 0
        for record in reversed(self.records):
            size += len(record)
            ahead -= 1
            if not ahead or size >= CREDIT_WINDOW:
                break
        return size


class Runs:
    """Every run of this node, whichever relay it came through.

    `start(run, sealed)` opens the request and sets the worker going; it raises SealError, WireError or Refused when
    the request cannot be opened, and the job is rejected with that code. `stop(run)` ends the worker.
    """

    def __init__(
        self,
        *,
        slots: int,
        timing: Timing,
        start: Callable[[Run, bytes], None],
        stop: Callable[[Run], None],
    ) -> None:
        self.slots = slots
        self.draining = False
        self._timing = timing
        self._start = start
        self._stop = stop
        self._runs: dict[JobId, Run] = {}
        self._busy = 0
        self._kept_bytes = 0
        self._finished: dict[JobId, Run] = {}
        self._links: dict[NodeEnd, dict[Sid, Run]] = {}
        """Every link, and what is attached to it."""

    # -- what the owner asks ---------------------------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """Runs that hold a slot of the engine."""
        return self._busy

    @property
    def free(self) -> int:
        """Slots that could take a job now."""
        return 0 if self.draining else max(0, self.slots - self._busy)

    @property
    def unsent(self) -> bool:
        """Whether some relay still waits for records of an answer that has ended."""
        return any(run.attached is not None for run in self._finished.values())

    def resize(self, slots: int) -> None:
        """The engine takes so many at once from now on."""
        if slots != self.slots:
            self.slots = slots
            self._tell()

    def status(self) -> Status:
        """What the relays are told."""
        return Status(slots=self.slots, free=min(self.free, self.slots))

    # -- links -----------------------------------------------------------------------------------------------------

    def link_up(self, end: NodeEnd) -> None:
        """A relay welcomed us. It hears what is free, and rewinds what it had."""
        self._links[end] = {}
        end.status(self.status())

    def link_lost(self, end: NodeEnd, now: float) -> None:
        """A link broke. Its runs go on as orphans, silent until some relay says where to rewind."""
        for run in self._links.pop(end, {}).values():
            run.attached = None
            run.since = now

    # -- what the relays ask ---------------------------------------------------------------------------------------

    def offered(self, end: NodeEnd, event: Offered, now: float) -> Run | None:
        """A sealed request. A job that runs already is bound to its run, never run twice."""
        try:
            job = job_of(event.sealed)
        except WireError as error:
            end.reject(event.sid, Reason(error.code, error.message))
            return None
        digest = hashlib.sha256(event.sealed).digest()
        run = self._runs.get(job)
        if run is not None:
            if run.digest != digest:
                end.reject(event.sid, Reason("duplicate_job", "Another request has this id; choose a new one."))
                return None
            if run.first_kept:
                gone = Reason(Outcome.ANSWER_TOO_LARGE, "The beginning of that answer is no longer kept.")
                end.reject(event.sid, gone)
                return None
            self._attach(run, end, event.sid, 0, now)
            return run
        if self.draining:
            end.reject(event.sid, Reason("node_draining", _STOPPING))
            return None
        if self._busy >= self.slots:
            end.reject(event.sid, Reason("busy", "All slots of this node are taken."))
            return None
        run = Run(job=job, digest=digest, last_sent=now)
        try:
            self._start(run, event.sealed)
        except (SealError, WireError, Refused) as error:
            end.reject(event.sid, Reason(error.code, error.message))
            return None
        self._runs[job] = run
        self._busy += 1
        self._attach(run, end, event.sid, 0, now)
        self._tell(but=end)
        return run

    def rewound(self, end: NodeEnd, event: Rewound, now: float) -> None:
        """A relay (the same one, or another) wants a run from some record on."""
        run = self._runs.get(event.job)
        if run is None:
            self._decline(end, event.sid, Reason("job_unknown", "This node does not hold that answer (any more)."))
        elif event.next_record < run.first_kept:
            self._set_adrift(run, end, now)
            self._decline(
                end, event.sid, Reason(Outcome.ANSWER_TOO_LARGE, "That part of the answer is no longer kept.")
            )
        elif event.next_record > run.count:
            self._set_adrift(run, end, now)
            self._decline(end, event.sid, Reason("not_there_yet", "The answer is not that long."))
        else:
            self._attach(run, end, event.sid, event.next_record, now, event.allowed)

    def granted(self, end: NodeEnd, sid: Sid, total: int, now: float) -> None:
        """The client took something; more may be sent."""
        run = self._links[end].get(sid)
        if run is not None and run.attached is not None:
            run.attached.allowed = max(run.attached.allowed, total)
            self._pump(run, now)

    def cancelled(self, end: NodeEnd, sid: Sid) -> None:
        """Nobody wants it: stop decoding now."""
        run = self._links[end].get(sid)
        if run is not None:
            self._forget(run)
        else:
            end.status(self.status())  # our END or REJECT crossed the CANCEL and was dropped: the relay knows no count

    # -- what the worker does --------------------------------------------------------------------------------------

    def push(self, run: Run, record: bytes, now: float) -> None:
        """The next record of an answer. The worker waits for `run.has_room` before it makes more."""
        if run.ended is not None or self._runs.get(run.job) is not run:
            return
        run.records.append(record)
        run.kept_bytes += len(record)
        self._kept_bytes += len(record)
        self._pump(run, now)

    def finish(self, run: Run, reason: Reason, now: float) -> None:
        """The answer is whole (or its abort is sealed) and the engine is let go: the slot is free again."""
        if run.ended is not None or self._runs.get(run.job) is not run:
            return
        run.ended = reason
        run.since = now
        run.holds_slot = False
        self._busy -= 1
        self._finished[run.job] = run
        at = run.attached
        self._pump(run, now)
        self._tell(but=at.end if at is not None and run.attached is None else None)
        self._evict()

    def release(self, run: Run) -> None:
        """A worker that was stopped has let go of the engine."""
        if run.holds_slot:
            run.holds_slot = False
            self._busy -= 1
            self._tell()

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Call about once a second: signs of work, orphans that nobody claimed, answers kept long enough."""
        for run in list(self._runs.values()):
            if run.attached is None:
                patience = self._timing.orphan if run.ended is None else self._timing.keep_finished
                if now - run.since >= patience:
                    self._forget(run)
            elif run.ended is None and now - run.last_sent >= self._timing.progress_every:
                run.last_sent = now
                run.attached.end.progress(run.attached.sid)

    def hand_back(self) -> None:
        """The node is stopping: what has given no record yet goes back unbegun, so that another node may answer it.

        The price is a long prompt that was nearly computed and is begun anew elsewhere.
        """
        for run in list(self._runs.values()):
            if run.ended is None and not run.count:
                if run.attached is not None:
                    at = self._detach(run, run.attached)
                    at.end.end(at.sid, 0, Reason("node_draining", _STOPPING), self.free)
                self._forget(run)

    def stop_all(self) -> None:
        """The node is going away."""
        for run in list(self._runs.values()):
            self._forget(run)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _attach(
        self, run: Run, end: NodeEnd, sid: Sid, next_record: int, now: float, allowed: int = CREDIT_WINDOW
    ) -> None:
        if run.attached is not None:
            old = self._detach(run, run.attached)
            old.end.end(old.sid, old.next_record, Reason(Outcome.MOVED), self.free)
        run.attached = Attachment(end=end, sid=sid, next_record=next_record, allowed=allowed)
        self._links[end][sid] = run
        end.accept(sid, next_record)
        self._pump(run, now)

    def _decline(self, end: NodeEnd, sid: Sid, reason: Reason) -> None:
        """Refuse to go on with a job. What we said under its former sid was dropped there, so say what is free."""
        end.reject(sid, reason)
        end.status(self.status())

    def _set_adrift(self, run: Run, end: NodeEnd, now: float) -> None:
        """A relay that asks for a rewind has let go of the stream before: nobody reads that one any more."""
        if run.attached is not None and run.attached.end is end:
            at = self._detach(run, run.attached)
            end.end(at.sid, at.next_record, Reason(Outcome.MOVED), self.free)
            run.since = now

    def _detach(self, run: Run, at: Attachment) -> Attachment:
        run.attached = None
        self._links[at.end].pop(at.sid, None)
        return at

    def _pump(self, run: Run, now: float) -> None:
        at = run.attached
        if at is not None:
            while at.next_record < run.count:
                record = run.records[at.next_record - run.first_kept]
                if at.sent_bytes + len(record) > at.allowed:
                    break
                at.end.data(at.sid, at.next_record, record)
                at.sent_bytes += len(record)
                at.next_record += 1
                run.last_sent = now
            while run.kept_bytes > RUN_BUFFER and run.first_kept < at.next_record:
                self._drop_first(run)
            if run.ended is not None and at.next_record == run.count:
                self._detach(run, at).end.end(at.sid, run.count, run.ended, self.free)
                run.since = now
        if run.on_room is not None and run.has_room:
            run.on_room()

    def _drop_first(self, run: Run) -> None:
        size = len(run.records.popleft())
        run.first_kept += 1
        run.kept_bytes -= size
        self._kept_bytes -= size

    def _evict(self) -> None:
        while len(self._finished) > KEPT_RUNS or self._kept_bytes > KEPT_BYTES:
            oldest = next((run for run in self._finished.values() if run.attached is None), None)
            if oldest is None:
                return
            self._forget(oldest)

    def _forget(self, run: Run) -> None:
        if self._runs.get(run.job) is run:
            del self._runs[run.job]
            self._finished.pop(run.job, None)
            self._kept_bytes -= run.kept_bytes
            if run.attached is not None:
                self._detach(run, run.attached)
            if run.ended is None:
                run.ended = Reason(Outcome.CANCELLED)
                self._stop(run)

    def _tell(self, but: NodeEnd | None = None) -> None:
        """Every relay hears what is free, but the one that counted it for itself."""
        for end in self._links:
            if end is not but:
                end.status(self.status())

"""The middle: brings sealed requests to nodes and sealed records back. Pure: no clock, no socket, no keys, no words.

Everything happens in plain method calls that are given the time. What is to be sent waits in the links' ends and in
the tickets, which wake their shells. The rules, each learnt from a failure:

- a job is offered only to a node with a free slot; otherwise it waits in that node's queue, bounded;
- a request that nobody saw an answer to may be offered again (the node binds it to the run it has); once a record
  was received the job is only ever rewound, never run a second time;
- the client's credit is what its socket took, the rewind point is what the relay received: different numbers;
- every job ends in one named outcome, told to the client, counted once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from tokenplace.errors import Draining, JobUnknown, NodeUnknown, QueueFull, Refused
from tokenplace.link.ends import RelayEnd
from tokenplace.link.events import (
    Accepted,
    Drained,
    Ended,
    Piece,
    Ponged,
    Progressed,
    Rejected,
    RelayEvent,
    Reported,
)
from tokenplace.relay.breaker import Circuit
from tokenplace.relay.counts import Counts
from tokenplace.relay.deadlines import Deadlines
from tokenplace.relay.endings import FORGOTTEN, PAUSED, STOPPED, STOPPING, counted_as, ended, expired, refused
from tokenplace.relay.fairness import Shares, within_share
from tokenplace.relay.jobs import Job, Move, Step
from tokenplace.relay.roster import Node, Roster
from tokenplace.relay.tickets import INTERRUPTED, Ticket
from tokenplace.wire.card import Card
from tokenplace.wire.ids import JobId, NodeId, Sid
from tokenplace.wire.limits import MAX_QUEUE_PER_NODE, MAX_QUEUED_BYTES, MAX_STREAMS_PER_NODE, TIMING, Timing
from tokenplace.wire.messages import ENGINE_FAILED, Hello, Outcome, Reason

R = TypeVar("R", bound=Refused)


class Broker:
    """All jobs and all nodes of one relay."""

    def __init__(
        self,
        *,
        timing: Timing = TIMING,
        rng: random.Random | None = None,
        max_queue: int = MAX_QUEUE_PER_NODE,
        max_bytes: int = MAX_QUEUED_BYTES,
    ) -> None:
        self.timing = timing
        self.draining = False
        self.rng = rng or random.Random()  # noqa: S311 - a load balancer's dice
        self.roster = Roster(self.rng)
        self.counts = Counts()
        self.tickets: dict[JobId, Ticket] = {}
        self._max_queue = max_queue
        self._held = Shares(max_bytes)
        self._deadlines = Deadlines()

    # -- clients ---------------------------------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """Waiting requests in memory."""
        return self._held.held

    def reserve(self, size: int, client: str = "") -> None:
        """Take memory for a request that is being received. Raises QueueFull when there is none to spare."""
        if not self._held.take(client, size):
            raise self._refuse(
                QueueFull("This relay holds as many waiting requests as its memory allows.", retry_after=2)
            )

    def release(self, size: int, client: str = "") -> None:
        """Give memory back."""
        self._held.give(client, size)

    def check_door(self, node_id: NodeId, client: str = "") -> Node:
        """Whether a job for that node would be taken now, before its bytes are read.

        Raises Draining, NodeUnknown or QueueFull.
        """
        if self.draining:
            raise self._refuse(Draining(retry_after=self.timing.drain))
        node = self.roster.get(node_id)
        if node is None or not node.takes:
            raise self._refuse(NodeUnknown())
        mine = node.queue.held_by(client)
        if not within_share(mine, 1, len(node.queue), self._max_queue):
            wait = node.standing.seconds_per_job * max(1, mine) / max(1, node.slots)
            raise self._refuse(
                QueueFull(
                    f"{len(node.queue)} requests wait for this node already, {mine} of them yours.",
                    retry_after=max(1.0, wait),
                )
            )
        return node

    def submit(self, job: JobId, sealed: bytes, node_id: NodeId, linger: float, now: float, client: str = "") -> Ticket:
        """Take a request whose memory is reserved for the same client.

        Raises what `check_door` raises, or Refused `job_exists`.
        """
        node = self.check_door(node_id, client)
        if job in self.tickets:
            raise self._refuse(
                Refused("This request is here already; go on with its stream.", code="job_exists", status=409)
            )
        ticket = Ticket(
            job=Job(job, node_id),
            linger=min(max(linger, 0.0), self.timing.max_linger),
            next_record=0,
            since=now,
            created=now,
            sealed=sealed,
            client=client,
        )
        self.tickets[job] = ticket
        node.visitors.came(client, now)
        node.queue.push(ticket)
        if node.standing.breaker.state is Circuit.HALF_OPEN:
            node.standing.breaker.tried()
            self.roster.add(node)
        self._serve(node, now)
        self._watch(ticket, now)
        return ticket

    def attach(
        self, job: JobId, node_id: NodeId, next_record: int, linger: float, now: float, client: str = ""
    ) -> Ticket:
        """Go on with a job at a record, whichever relay it came through first.

        A relay that is draining goes on with what it has: a refusal would cost the client the answer.

        Raises NodeUnknown, JobUnknown when it is another node's; Draining or QueueFull for a job that is not here.
        """
        old = self.tickets.get(job)
        if self.draining and old is None:
            raise self._refuse(Draining(retry_after=self.timing.drain))
        node = self.roster.get(node_id)
        if node is None:
            raise self._refuse(NodeUnknown())
        if old is not None and old.job.node != node_id:
            raise self._refuse(JobUnknown())
        if old is None:
            self._check_room(node, client)
        self.counts.resumed += 1
        linger = min(max(linger, 0.0), self.timing.max_linger)
        if old is not None and old.sealed is not None and not next_record:
            return self._hand_over(old, linger, now)
        if old is not None:
            self._let_go(node, old)
            if old.sid is not None and node.end is not None:
                node.end.forget(old.sid)
            self._close(old, Move.CANCEL, Reason(Outcome.MOVED, "The client goes on over another connection."))
        ticket = Ticket(
            job=Job(job, node_id, Step.SEVERED),
            linger=linger,
            next_record=next_record,
            since=now,
            created=now,
            client=client if old is None else old.client,
        )
        self.tickets[job] = ticket
        if node.end is None:
            node.severed[job] = ticket
        else:
            self._rewind(node, node.end, ticket, now)
        self._watch(ticket, now)
        return ticket

    def _check_room(self, node: Node, client: str) -> None:
        """Whether a client may go on with one more job of a node; the share of each is as in its queue."""
        held = [*node.active.values(), *node.severed.values()]
        mine = sum(ticket.client == client for ticket in held)
        if not within_share(mine, 1, len(held), 4 * MAX_STREAMS_PER_NODE):
            raise self._refuse(
                QueueFull(f"{len(held)} streams of this node are open here, {mine} of them yours.", retry_after=5)
            )

    def _hand_over(self, ticket: Ticket, linger: float, now: float) -> Ticket:
        """The client comes back for a job of which no record has arrived: it keeps its place."""
        former, ticket.wake = ticket.wake, None
        if former is not None:
            former()
        ticket.left_at = None
        ticket.linger = linger
        self._watch(ticket, now)
        return ticket

    def taken(self, ticket: Ticket, size: int, now: float) -> None:
        """The client's socket took `size` bytes of what it was given."""
        ticket.taken(size, now)
        total = ticket.credit_due()
        if total is not None and ticket.sid is not None:
            node = self.roster.get(ticket.job.node)
            if node is not None and node.end is not None:
                node.end.grant(ticket.sid, total)

    def leave(self, ticket: Ticket, now: float) -> None:
        """The client's connection is gone. The job lingers as long as the client asked, or is cancelled at once."""
        if ticket.job.ended:
            return
        ticket.wake = None
        ticket.left_at = now
        if ticket.linger <= 0:
            self._cancel(ticket)
        else:
            self._watch(ticket, now)

    def cancel(self, job: JobId, node_id: NodeId) -> None:
        """The client does not want it any more. Raises JobUnknown."""
        ticket = self.tickets.get(job)
        if ticket is None or ticket.job.node != node_id:
            raise JobUnknown("No such job runs here; it may have ended already.")
        self._cancel(ticket)

    def position(self, ticket: Ticket) -> int:
        """How many wait before this ticket, and itself: 1 is next. 0 when it does not wait. Bounded by the queue."""
        node = self.roster.get(ticket.job.node)
        return 0 if node is None else node.queue.position(ticket.job.id)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def joined(self, hello: Hello, end: RelayEnd, close: Callable[[str], None], now: float) -> Node:
        """A node whose proof was checked. If it was away, it finds its tickets again.

        Whoever proved the identity last holds it: a link that the node has lost may look alive for a while.
        """
        node = self.roster.get(hello.card.node)
        if node is not None and node.end is not None:
            node.close("superseded")
            self.left(node, node.end, now)
        if node is None:
            standing = self.roster.recall(hello.card.node)
            node = Node(card=hello.card, end=end, slots=hello.slots, free=hello.slots, close=close, standing=standing)
        else:
            self.roster.unlist(node)
            if hello.card.body.sequence >= node.card.body.sequence:
                node.card = hello.card
            node.end, node.close = end, close
            node.slots = node.free = hello.slots
        node.since = end.last_pinged = now
        node.draining = False
        node.standing.breaker.look(now)
        end.welcome("token.place relay")
        if self.draining:
            end.drain()
        self.roster.add(node)
        for ticket in list(node.severed.values()):
            del node.severed[ticket.job.id]
            if ticket.offered or ticket.sealed is None:
                self._rewind(node, end, ticket, now)
            else:
                ticket.job = ticket.job.take(Move.RETURN)
                ticket.since = now
                node.queue.push(ticket)
        if not node.takes:
            self._empty(node, PAUSED)
        self._serve(node, now)
        return node

    def left(self, node: Node, end: RelayEnd, now: float) -> None:
        """A node's link broke. What it runs waits for its return, a short while."""
        if node.end is not end:
            return
        node.end = None
        self.roster.unlist(node)
        if node.draining:
            self._empty(node, STOPPED)
        for ticket in [*node.active.values(), *node.queue]:
            ticket.job = ticket.job.take(Move.SEVER)
            ticket.since = now
            ticket.sid = None
            node.severed[ticket.job.id] = ticket
            self._watch(ticket, now)
            ticket.call()
        node.active.clear()
        node.queue.clear()
        self._drop_if_empty(node)

    def handle(self, node: Node, end: RelayEnd, event: RelayEvent, now: float) -> None:
        """One event of a node's link."""
        if node.end is not end:
            return
        if type(event) is Piece:  # nearly every one is: before all others, and without the match's price
            self._piece(node, event.sid, event.data, now)
            return
        match event:
            case Ended(sid=sid, ending=ending):
                ticket = node.active.pop(sid, None)
                if ticket is not None:
                    self._ended(node, ticket, ending.reason, now)
                    node.told_free(ending.free, ending.seen)
                    self._serve(node, now)
            case Accepted(sid=sid):
                ticket = node.active.get(sid)
                if ticket is not None:
                    ticket.job = ticket.job.take(Move.START)
                    ticket.since = now
                    ticket.call()
            case Progressed(sid=sid):
                ticket = node.active.get(sid)
                if ticket is not None:
                    ticket.since = now
            case Rejected(sid=sid, reason=reason):
                ticket = node.active.pop(sid, None)
                if ticket is not None:
                    self._rejected(node, ticket, reason, now)
            case Reported(status=status, seen=seen):
                node.slots = status.slots
                if status.card is not None and status.card.node == node.id:
                    self.renew(node, status.card)
                    if not node.takes:
                        self._empty(node, PAUSED)
                node.told_free(status.free, seen)
                self._serve(node, now)
            case Ponged(seconds=seconds):
                node.rtt = seconds
            case Drained():
                node.draining = True
                self.roster.unlist(node)
                self._empty(node, STOPPING)
            case _:
                raise AssertionError(f"unexpected event {event!r}")

    def _piece(self, node: Node, sid: Sid, data: bytes, now: float) -> None:
        ticket = node.active.get(sid)
        if ticket is not None:
            self.counts.pieces += 1
            self.counts.bytes += len(data)
            if ticket.sealed is not None:
                self._let_go_of_request(ticket)
            ticket.put(data, now)

    def renew(self, node: Node, card: Card) -> None:
        """A newer card of a connected node, whose signature was checked."""
        if card.body.sequence > node.card.body.sequence:
            self.roster.unlist(node)
            node.card = card
            self.roster.add(node)

    # -- time and ending -------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Call about twice a second: whatever waited too long ends; silent links are closed; quiet ones pinged."""
        for ticket in self._deadlines.due(now):
            when, outcome = ticket.due(self.timing)
            if when <= now:
                self._expire(ticket, outcome, now)
            else:
                self._watch(ticket, now)
        self._deadlines.tidy(len(self.tickets))
        for node in self.roster:
            end = node.end
            if end is None:
                continue
            if end.clogged:
                node.close("This node does not read.")
                self.left(node, end, now)
            elif now - end.last_heard >= self.timing.silence:
                node.close("silent")
                self.left(node, end, now)
            elif now - end.last_pinged >= self.timing.heartbeat:
                end.ping(now)
            if node.standing.breaker.look(now):
                self.roster.add(node)
            if node.free > 0 and node.queue:
                self._serve(node, now)  # the slot that was kept for somebody is free for all when nobody came

    def overslept(self, seconds: float) -> None:
        """The relay itself stood still for so long (its machine or its process was stopped): nobody is to blame."""
        for ticket in self.tickets.values():
            ticket.overslept(seconds)
        for node in self.roster:
            if node.end is not None:
                node.end.last_heard += seconds

    def misbehaved(self, node: Node, end: RelayEnd, now: float) -> None:
        """A node broke the rules of its link, which is closed therefore."""
        if node.end is end:
            self._ill(node, now)

    def drain(self) -> None:
        """No new jobs from now on; the nodes are told; what runs goes on."""
        self.draining = True
        for node in self.roster:
            if node.end is not None:
                node.end.drain()
            self._empty(node, Reason(Outcome.RELAY_STOPPED, "This relay is shutting down; use another one."))

    def stop(self, *, quietly: bool = False) -> None:
        """Let go of everything that is left, by name; or quietly, when clients will find another replica here.

        The nodes are not told to cancel: whoever began an answer here may go on with it through another relay.
        """
        reason = Reason(Outcome.RELAY_STOPPED, "This relay was shut down.")
        for ticket in list(self.tickets.values()):
            node = self.roster.get(ticket.job.node)
            if node is not None:
                if ticket.sid is not None and node.end is not None:
                    node.end.forget(ticket.sid)
                self._let_go(node, ticket)
            self._close(ticket, Move.FAIL, reason)
            if quietly:
                ticket.ended = Reason(INTERRUPTED)

    # -- inside: the way to a node ---------------------------------------------------------------------------------

    def _serve(self, node: Node, now: float) -> None:
        """Offer what waits while there are free slots."""
        self.roster.changed(node)
        end = node.end
        if end is None:
            return
        while node.free > 0 and node.queue:
            ticket = node.queue.next(node.barred(now))
            if ticket is None:
                return
            if ticket.sealed is None:
                raise AssertionError("a queued ticket without its request")
            node.free -= 1
            ticket.counted = ticket.offered = True
            ticket.sid = end.offer(ticket.sealed)
            ticket.job = ticket.job.take(Move.OFFER)
            ticket.since = ticket.begun = now
            node.active[ticket.sid] = ticket
            self.counts.offers += 1

    def _rewind(self, node: Node, end: RelayEnd, ticket: Ticket, now: float) -> None:
        """Ask for the rest of a job; or offer it again when nobody has seen anything of it.

        Nobody: a client that is away may have gone on elsewhere, and what it saw there must not be run again. A node
        that comes back to it again and again and brings nothing is asked no more.
        """
        ticket.returns += 1
        if ticket.returns > _RETURNS:
            self._finish(ticket, Move.FAIL, expired(Outcome.NODE_LOST))
            return
        if ticket.sealed is not None and ticket.left_at is None:
            sid = end.offer(ticket.sealed)
            self.counts.offers += 1
        else:
            sid = end.rewind(ticket.job.id, ticket.next_record, ticket.room)
            self.counts.rewinds += 1
        ticket.restart(sid, now)
        ticket.counted = False
        ticket.job = ticket.job.take(Move.OFFER)
        node.active[sid] = ticket

    def _rejected(self, node: Node, ticket: Ticket, reason: Reason, now: float) -> None:
        if reason.code == "busy":
            node.free = 0
            if not node.takes:
                reason = PAUSED
            elif ticket.sealed is not None:
                ticket.job = ticket.job.take(Move.RETURN)
                ticket.sid = None
                ticket.since = ticket.created  # the minute it may wait is one, however often it is given back
                node.queue.give_back(ticket)
                ticket.call()
                self._watch(ticket, now)
                return
        elif ticket.counted:
            node.free += 1
        ticket.sid = None
        reason = refused(reason)
        if reason is FORGOTTEN and ticket.offered:
            self._ill(node, now, ticket.begun)
        self._finish(ticket, Move.FAIL, reason)
        self._serve(node, now)

    def _ended(self, node: Node, ticket: Ticket, reason: Reason, now: float) -> None:
        ticket.sid = None
        took = now - ticket.begun
        node.standing.worked(took)
        reason = ended(reason, ticket.next_record)
        if reason.code == Outcome.DONE:
            node.standing.answer_given(ticket.passed_on + ticket.received_bytes, took)
            self._well(node)
        elif reason.code in (Outcome.NODE_LOST, ENGINE_FAILED) or reason.message == ENGINE_FAILED:
            self._ill(node, now, ticket.begun)
        move = Move.FINISH if reason.code in (Outcome.DONE, Outcome.ABORTED) else Move.CANCEL
        self._finish(ticket, move, reason)

    # -- inside: ends ----------------------------------------------------------------------------------------------

    def _expire(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        if outcome is Outcome.CANCELLED:
            self._cancel(ticket)
            return
        node = self.roster.get(ticket.job.node)
        if node is not None:
            if outcome is Outcome.NO_PROGRESS:
                self._ill(node, now)
            elif outcome is Outcome.NODE_LOST:
                self._ill(node, now, ticket.begun)
        self._finish(ticket, Move.FAIL, expired(outcome))

    def _ill(self, node: Node, now: float, begun: float | None = None) -> None:
        """The node failed at a job that was `begun` then, and nobody else can have caused it."""
        if node.standing.breaker.failed(now, begun):
            self.roster.unlist(node)

    def _well(self, node: Node) -> None:
        """The node gave an answer."""
        if node.standing.breaker.succeeded():
            self.roster.add(node)

    def _cancel(self, ticket: Ticket) -> None:
        self._finish(ticket, Move.CANCEL, Reason(Outcome.CANCELLED, "The request was cancelled."))

    def _finish(self, ticket: Ticket, move: Move, reason: Reason) -> None:
        """The only way a ticket ends."""
        node = self.roster.get(ticket.job.node)
        if node is not None:
            if ticket.sid is not None and node.end is not None:
                node.end.cancel(ticket.sid)
            self._let_go(node, ticket)
        self._close(ticket, move, reason)
        if node is not None:
            if node.standing.breaker.trial:
                node.standing.breaker.told_nothing()
                self.roster.add(node)
            self._drop_if_empty(node)

    def _let_go(self, node: Node, ticket: Ticket) -> None:
        self.roster.changed(node)
        node.queue.discard(ticket.job.id)
        node.severed.pop(ticket.job.id, None)
        if ticket.sid is not None:
            node.active.pop(ticket.sid, None)

    def _close(self, ticket: Ticket, move: Move, reason: Reason) -> None:
        ticket.job = ticket.job.take(move)
        ticket.ended = reason
        ticket.sid = None  # on the node's next link the number is another job's: this one's reader must not grant there
        if ticket.sealed is not None:
            self._let_go_of_request(ticket)
        if self.tickets.get(ticket.job.id) is ticket:
            del self.tickets[ticket.job.id]
        self.counts.outcomes[counted_as(reason)] += 1
        ticket.call()

    def _let_go_of_request(self, ticket: Ticket) -> None:
        self.release(len(ticket.sealed or b""), ticket.client)
        ticket.sealed = None

    def _empty(self, node: Node, reason: Reason) -> None:
        for ticket in list(node.queue):
            self._finish(ticket, Move.FAIL, reason)

    def _drop_if_empty(self, node: Node) -> None:
        if node.end is None and not (node.queue or node.active or node.severed):
            self.roster.remove(node)

    def _watch(self, ticket: Ticket, now: float) -> None:
        """Look at it again when it is due, and sooner than that where its deadline may move closer."""
        self._deadlines.watch(ticket, min(ticket.due(self.timing)[0], now + self.timing.silent_job))

    def _refuse(self, refusal: R) -> R:
        self.counts.refusals[refusal.code] += 1
        return refusal


_RETURNS = 4
"""Times that a node may come back to a job and bring nothing before it is given up."""

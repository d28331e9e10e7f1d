"""The classic routes as plain method calls: clients ask and read, nodes poll and answer. Pure: given the time.

A client's question goes to the node whose key it was sealed to: through the broker to a modern node, or into the queue
of one that polls. What comes back waits in the client's mailbox.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from tokenplace.errors import Draining, NodeUnknown, Refused, TokenPlaceError, WireError
from tokenplace.relay.broker import Broker
from tokenplace.relay.classic.bounds import CLASSIC_TIMING, MAX_HELD, STREAM_WINDOW, ClassicTiming
from tokenplace.relay.classic.collecting import Collector
from tokenplace.relay.classic.keys import CardKey, CardKeys, key_of
from tokenplace.relay.classic.polling import Caller, Key, PollingNode, PollingNodes
from tokenplace.relay.classic.questions import Left, Mailboxes, Owner, Question, State, digest, full, pack
from tokenplace.wire.classic import ClassicRequest, Door
from tokenplace.wire.ids import NodeId
from tokenplace.wire.messages import Outcome

_ATTEMPTS = 2
"""How often a question is given to a node that takes it and shows nothing."""

_MOMENT = 5.0
"""Seconds in which a client that polls comes again."""

_STOPPING = "This relay is shutting down; use another one."


@dataclass(frozen=True, slots=True)
class Server:
    """A server that a client is sent to: its key as it was registered, and what a modern one says of itself."""

    key: object
    key_id: str | None = None
    node: NodeId | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What a client gets: an answer, or pieces of a stream."""

    question: Question
    answer: bytes | None = None
    chunks: tuple[bytes, ...] = ()
    final: bool = False


@dataclass(frozen=True, slots=True)
class Polled:
    """What a node gets: jobs, and when to come again."""

    node: PollingNode
    jobs: tuple[Question, ...]
    ping: float


class ClassicRoom:
    """Everything the classic routes know."""

    def __init__(
        self,
        broker: Broker,
        clock: Callable[[], float],
        *,
        timing: ClassicTiming = CLASSIC_TIMING,
        rng: random.Random | None = None,
        max_held: int = MAX_HELD,
    ) -> None:
        self.timing = timing
        self.mailboxes = Mailboxes(max_held)
        self.refusals: Counter[str] = Counter()
        self._broker = broker
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - a load balancer's dice
        self.polling = PollingNodes(timing, self._rng)
        self.cards = CardKeys(broker.roster, timing, lambda key: self.polling.get(key) is not None)

    @property
    def draining(self) -> bool:
        """Whether the relay takes no new work."""
        return self._broker.draining

    # -- clients ---------------------------------------------------------------------------------------------------

    def servers(self, now: float) -> int:
        """How many polling nodes clients may be sent to."""
        return sum(len(group) for group in self.polling.by_address(now))

    def next_server(self, now: float) -> Server | None:
        """One of the live servers at random. All that poll from one address have one address's share."""
        if self._broker.draining:
            return None
        cards, groups = self.cards.present(now), self.polling.by_address(now)
        if not cards and not groups:
            return None
        place = self._rng.randrange(len(cards) + len(groups))
        if place >= len(cards):
            return Server(self._rng.choice(groups[place - len(cards)]).told)
        known, text = cards[place]
        return Server(text, known.key_id, known.node)

    def ask(
        self, address: str, told: object, body: Mapping[str, str], *, stream: bool, bound: bool, now: float
    ) -> tuple[Question, str]:
        """A question of a client at `address`, sealed to the key `told`. Gives it and the token for its answer.

        `body` has the four fields of the wire. Raises Refused (NodeUnknown where nobody holds the key) or TooLarge.
        """
        if self._broker.draining:
            raise Draining(retry_after=self._broker.timing.drain)
        name = name_of(told)
        polling = self.polling.get(name)
        known = self.cards.holder(name, now) if polling is None else None
        if polling is None and known is None:
            raise _nobody()
        owner = Owner(digest(body["client_public_key"]), address)
        question, token = self.mailboxes.open(owner, stream=stream, bound=bound, now=now)
        try:
            if polling is not None:
                self._queue(polling, question, body, now)
            elif known is not None:
                self._submit(known, question, body, now)
        except TokenPlaceError:
            self.mailboxes.drop(question, None)
            raise
        return question, token

    def unanswerable(self) -> None:
        """A question came that nobody could read an answer to."""
        self.mailboxes.left[Left.UNANSWERABLE] += 1

    def _queue(self, node: PollingNode, question: Question, body: Mapping[str, str], now: float) -> None:
        if not self.mailboxes.charge(question, sum(len(value) for value in body.values())):
            raise full()
        question.body = body
        question.stop = lambda: self.polling.unqueue(node, question)
        self.polling.queue(node, question)
        self.mailboxes.waits(question, now)

    def _submit(self, known: CardKey, question: Question, body: Mapping[str, str], now: float) -> None:
        request = ClassicRequest(Door.RELAY, body, stream=question.stream, key_id=known.key_id)
        packed, client = request.pack(), question.owner.address
        try:
            self._broker.check_door(known.node, client)
            self._broker.reserve(len(packed), client)
        except NodeUnknown:
            raise _nobody() from None
        try:
            ticket = self._broker.submit(request.job, packed, known.node, 0.0, now, client)
        except TokenPlaceError:
            self._broker.release(len(packed), client)
            raise
        Collector(self._broker, ticket, self.mailboxes, question, self._clock)

    def retrieve(self, owner: Owner, request_id: str | None, token: str | None, now: float) -> Read | Question | None:
        """A whole answer; the question where it is not here yet; None where nothing was asked.

        Raises Refused when there will be none, and where the caller may not have it; WireError for a stream.
        """
        question = self.mailboxes.find(owner, request_id, token, stream=False)
        if question is None:
            return None
        question.asked = now
        if question.fault is not None:
            raise self._tell(question, question.fault)
        if question.answer is None:
            if question.chunks or question.final:
                raise WireError("This answer is a stream; read its pieces at /stream/retrieve.")
            question.in_vain = True
            return question
        read = Read(question, answer=question.answer, final=True)
        self.mailboxes.drop(question, Left.READ)
        return read

    def stream_retrieve(
        self, owner: Owner, request_id: str | None, token: str | None, now: float
    ) -> Read | Question | None:
        """The pieces that are new; otherwise as `retrieve`. A stream that nobody has begun has no pieces yet."""
        question = self.mailboxes.find(owner, request_id, token, stream=True)
        if question is None:
            return None
        question.asked = now
        chunks = tuple(question.chunks)
        if chunks:
            question.chunks.clear()
            self.mailboxes.credit(question, question.unread)
            question.unread = 0
        elif question.fault is not None:
            raise self._tell(question, question.fault)
        if question.answer is not None:  # a node that does not know streams answered whole
            chunks = (*chunks, question.answer)
        if question.state is State.ANSWERED:
            self.mailboxes.drop(question, Left.READ)
            return Read(question, chunks=chunks, final=True)
        question.in_vain = True
        if not chunks:
            return question
        if question.pull is not None:
            question.pull()
        return Read(question, chunks=chunks)

    def cancel(self, owner: Owner, request_id: str, token: str | None) -> None:
        """The client does not want it any more. Raises Refused where there is no such question of its."""
        question = self.mailboxes.find(owner, request_id, token, stream=False)
        if question is not None:
            self.mailboxes.drop(question, Left.CANCELLED)

    def _tell(self, question: Question, fault: Refused) -> Refused:
        self.mailboxes.drop(question, Left.TOLD)
        return fault

    # -- nodes that poll -------------------------------------------------------------------------------------------

    def visit(self, caller: Caller, told: object, token: str | None, *, batch: int, now: float) -> PollingNode:
        """A node polls; take what there is for it with `hand_out`. Raises Refused."""
        if self._broker.draining:
            raise Draining(retry_after=self._broker.timing.drain)
        key = name_of(told)
        if self.polling.get(key) is None and self.cards.holder(key, now) is not None:
            raise Refused(
                "This key is on the card of a node that dials in; a node polls or dials in, not both.",
                code="key_held",
                status=HTTPStatus.FORBIDDEN,
            )
        node = self.polling.visit(caller, key, told, token, now)
        if batch == 1 and not node.bound and not node.waiting:
            for question in list(node.taken.values()):
                self._lost(node, question, now)
        return node

    def hand_out(self, node: PollingNode, batch: int, now: float) -> Polled:
        """The jobs that wait for a node, `batch` at most, and in how many seconds it should come again."""
        node.heard = now
        jobs = self.polling.take(node, batch)
        for question in jobs:
            self.mailboxes.taken(question, now)
        return Polled(node, tuple(jobs), 0 if self.polling.ready(node) else self.polling.ping)

    def answer(
        self,
        caller: Caller,
        client_key: str,
        fields: Mapping[str, str],
        request_id: str | None,
        token: str | None,
        now: float,
    ) -> bool:
        """A polling node's whole answer; False when nobody waits for it any more. `fields` as the client gets them.

        Raises Refused `not_your_job` unless this caller has taken a question of that client.
        """
        node, question = self._job(caller, digest(client_key), request_id, token)
        node.heard = now
        self.polling.give_up(node, question)
        if self.mailboxes.get(question.id) is None or question.over:
            return False
        packed = pack(fields)
        if not self.mailboxes.charge(question, len(packed)):
            self.mailboxes.failed(question, full(), now)
            raise full()
        self.mailboxes.answered(question, packed, now)
        return True

    def _job(
        self, caller: Caller, client: bytes, request_id: str | None, token: str | None
    ) -> tuple[PollingNode, Question]:
        if request_id is None:
            found = self.polling.owed(caller, client)
        else:
            question = self.mailboxes.get(request_id)
            node = self.polling.taker(question) if question is not None else None
            found = (node, question) if node is not None and question is not None else None
        if found is None or found[1].owner.key != client or not found[0].holds(caller, token):
            raise _not_yours()
        return found

    def piece(self, caller: Caller, session: str, chunk: bytes, token: str | None, *, final: bool, now: float) -> None:
        """A piece of a stream from the polling node that took its question.

        Raises Refused: `session_unknown`, `not_your_job`, `stream_closed`, or `mailbox_full` when the client does not
        read (then the same piece may come again a little later).
        """
        question = self.mailboxes.session(session)
        if question is None:
            raise Refused(
                "There is no such stream; its client may have left.",
                code="session_unknown",
                status=HTTPStatus.NOT_FOUND,
            )
        node = self.polling.taker(question)
        if question.final:
            raise Refused(
                "The final piece of this stream came already.", code="stream_closed", status=HTTPStatus.CONFLICT
            )
        if node is None or not node.holds(caller, token):
            raise _not_yours()
        node.heard = now
        if question.unread >= STREAM_WINDOW or not self.mailboxes.charge(question, len(chunk)):
            raise full()
        self.mailboxes.piece(question, chunk, now)
        if final:
            self.polling.give_up(node, question)
            self.mailboxes.answered(question, None, now)

    # -- time ------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Call about twice a second: whatever waited too long ends."""
        timing = self.timing
        self.cards.tick(now)
        for node in self.polling:
            for question in list(node.taken.values()):
                if now - question.since >= timing.lease:
                    self.polling.give_up(node, question)
                    self._fail(question, Outcome.NO_PROGRESS, "The node held the question without a sign of work.", now)
        for node in self.polling.silent(now):
            for question in list(node.queue):
                self._fail(question, Outcome.NODE_LOST, "The node that should have answered has vanished.", now)
            node.queue.clear()
        for question in self.mailboxes:
            if question.over and now - question.since >= timing.kept:
                self.mailboxes.drop(question, Left.UNREAD if question.fault is None else Left.TOLD)
            elif not question.over and now - question.asked >= timing.unasked:
                self.mailboxes.drop(question, Left.ABANDONED)
            elif question.state is State.WAITING and question.body and now - question.since >= timing.queue_wait:
                unqueue = question.stop
                self._fail(question, Outcome.QUEUE_TIMEOUT, "No node fetched the question in time; ask again.", now)
                if unqueue is not None:
                    unqueue()
            elif question.pull is not None:
                question.pull()

    def drain(self, now: float) -> None:
        """The relay is going away: no node fetches what waits, and those that wait for work may go elsewhere."""
        for node in self.polling:
            for question in list(node.queue):
                self._fail(question, Outcome.RELAY_STOPPED, _STOPPING, now)
            node.queue.clear()
            node.bell.ring()

    def stop(self, now: float) -> None:
        """Tell everybody who waits that nothing more will come."""
        for question in self.mailboxes:
            self._fail(question, Outcome.RELAY_STOPPED, _STOPPING, now)

    def busy(self, now: float) -> bool:
        """Whether an answer is in the making, or lies where its reader will come for it in a moment."""
        return any(not question.over or now - question.since < _MOMENT for question in self.mailboxes)

    def _lost(self, node: PollingNode, question: Question, now: float) -> None:
        """The node came again without the answer to what it took."""
        self.polling.give_up(node, question)
        if self.mailboxes.get(question.id) is None or question.over:
            return
        if question.attempts < _ATTEMPTS and not question.chunks and question.body:
            self.mailboxes.waits(question, now)
            self.polling.again(node, question)
            return
        self._fail(question, Outcome.NODE_LOST, "The node took the question and never answered it.", now)

    def _fail(self, question: Question, outcome: Outcome, message: str, now: float) -> None:
        if self.mailboxes.get(question.id) is not None:
            fault = Refused(message, code=outcome.value, status=HTTPStatus.BAD_GATEWAY)
            self.mailboxes.failed(question, fault, now)


def name_of(told: object) -> Key:
    """The short name of a key as it was registered. Of a JSON scalar that is no text, the text that it prints as."""
    return key_of(told if isinstance(told, str) else repr(told))


def _nobody() -> NodeUnknown:
    return NodeUnknown("No server with this key is here now; ask /next_server for another.")


def _not_yours() -> Refused:
    return Refused(
        "You have taken no question that this would answer.", code="not_your_job", status=HTTPStatus.FORBIDDEN
    )

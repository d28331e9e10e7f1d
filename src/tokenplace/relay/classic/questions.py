"""What classic clients have asked and not yet read: mailboxes, in order, bounded. Pure.

The original kept one answer per client key and gave it to whoever asked next. Here an answer belongs to its question:

    waiting ──▶ taken ──▶ answered ──▶ read
       │          │           │
       └──────────┴──▶ failed ┴──▶ dropped

- A mailbox belongs to a client key **and** the address that asked, so that knowing a public key opens nothing.
- A question has a `request_id` and a token. Who names them gets that answer and no other; a question whose token was
  shown once (or that was asked as `bound`) is given to nobody without it.
- The original's clients name nothing. They get their answers in the order of their questions. When such a client has
  asked in vain for an answer and then asks a new question, it has given the old one up: that answer will not be given
  to it as the answer to the new one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tokenplace.errors import Refused
from tokenplace.relay.classic.bounds import MAX_HELD, MAX_PER_MAILBOX, QUESTION_COST
from tokenplace.relay.fairness import Shares
from tokenplace.wire.messages import Outcome


class State(StrEnum):
    """How far a question has come."""

    WAITING = "waiting"
    TAKEN = "taken"
    ANSWERED = "answered"
    FAILED = "failed"


class Left(StrEnum):
    """How a question left its mailbox: what the metrics count."""

    READ = "read"
    """The answer was read."""
    TOLD = "told"
    """The client was told that there will be none."""
    SUPERSEDED = "superseded"
    """Its client had asked in vain, and asked something new."""
    CANCELLED = "cancelled"
    """Its client said that it is not wanted any more."""
    ABANDONED = "abandoned"
    """Nobody asked for the answer while it was in the making."""
    UNREAD = "unread"
    """The answer was there, and nobody read it in time."""
    UNANSWERABLE = "unanswerable"
    """It came without a client key, so that no answer could have been read."""


class Owner(NamedTuple):
    """Whose mailbox: the digest of the client's key, and the address that asked."""

    key: bytes
    address: str


class Bell:
    """Who waits for news of something."""

    __slots__ = ("_ears",)

    def __init__(self) -> None:
        self._ears: set[Callable[[], None]] = set()

    def listen(self, ear: Callable[[], None]) -> None:
        """Call `ear` at the next news, and at every later one."""
        self._ears.add(ear)

    def leave(self, ear: Callable[[], None]) -> None:
        """No more."""
        self._ears.discard(ear)

    def ring(self) -> None:
        """There is news."""
        for ear in tuple(self._ears):
            ear()

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._ears)


@dataclass(slots=True, eq=False)
class Question:
    """One question, and what came of it."""

    id: str
    owner: Owner
    token: bytes
    """Digest of the token that opens it from anywhere."""
    stream: bool
    session: str
    asked: float
    """When somebody last asked for the answer."""
    since: float
    """When it entered its present state, or last showed progress in it."""
    bound: bool = False
    """Only for who shows the token."""
    named: bool = False
    """Its client knows its name, so that it keeps no other question waiting."""
    in_vain: bool = False
    """Its client has come for it, naming nothing, and went away without it."""
    state: State = State.WAITING
    body: Mapping[str, str] = field(default_factory=dict)
    """What a polling node is given; emptied when it is not needed again."""
    held: int = 0
    """Bytes that the owner's address is charged with."""
    attempts: int = 0
    answer: bytes | None = None
    """JSON of the fields that the client gets."""
    chunks: deque[bytes] = field(default_factory=deque)
    """Unread pieces, each JSON."""
    unread: int = 0
    final: bool = False
    fault: Refused | None = None
    stop: Callable[[], None] | None = None
    """Lets go of the work that somebody does for it."""
    pull: Callable[[], None] | None = None
    """There is room again: take what was held back."""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in (State.ANSWERED, State.FAILED)


def digest(text: str) -> bytes:
    """How keys and tokens are kept."""
    return hashlib.sha256(text.encode()).digest()


def pack(content: object) -> bytes:
    """JSON as the original wrote it: keys sorted, nothing between, plain ASCII."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def same(token: str | None, kept: bytes) -> bool:
    """Whether this is the token, in constant time."""
    return token is not None and hmac.compare_digest(digest(token), kept)


class Mailboxes:
    """All questions of one relay."""

    def __init__(self, limit: int = MAX_HELD) -> None:
        self.shares = Shares(limit)
        self.left: dict[Left, int] = dict.fromkeys(Left, 0)
        self.faults: Counter[str] = Counter()
        """Why questions failed, in words of our own."""
        self._questions: dict[str, Question] = {}
        self._boxes: dict[Owner, OrderedDict[str, Question]] = {}
        self._sessions: dict[str, Question] = {}
        self._bells: dict[Owner, Bell] = {}

    def __len__(self) -> int:
        return len(self._questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(list(self._questions.values()))

    @property
    def boxes(self) -> int:
        """Mailboxes in use."""
        return len(self._boxes)

    def get(self, question: str) -> Question | None:
        """By its request id."""
        return self._questions.get(question)

    def session(self, session: str) -> Question | None:
        """By the session id of its stream."""
        return self._sessions.get(session)

    # -- memory ----------------------------------------------------------------------------------------------------

    def charge(self, question: Question, size: int) -> bool:
        """Take memory for something of this question, if its client's share allows."""
        if not self.shares.take(question.owner.address, size):
            return False
        question.held += size
        return True

    def credit(self, question: Question, size: int) -> None:
        """Give memory back."""
        size = min(size, question.held)
        self.shares.give(question.owner.address, size)
        question.held -= size

    # -- coming and going ------------------------------------------------------------------------------------------

    def open(self, owner: Owner, *, stream: bool, bound: bool, now: float) -> tuple[Question, str]:
        """A new question and its token. Raises Refused when the client's mailbox or memory is full."""
        self._supersede(owner)
        if len(self._boxes.get(owner, ())) >= MAX_PER_MAILBOX:
            raise _full(f"{MAX_PER_MAILBOX} questions of this key are open already; read their answers first.")
        token = secrets.token_urlsafe(24)
        question = Question(
            id=secrets.token_hex(16),
            owner=owner,
            token=digest(token),
            stream=stream,
            session=secrets.token_urlsafe(16),
            asked=now,
            since=now,
            bound=bound,
            named=bound,
        )
        if not self.charge(question, QUESTION_COST):
            raise full()
        self._questions[question.id] = question
        self._sessions[question.session] = question
        self._boxes.setdefault(owner, OrderedDict())[question.id] = question
        return question, token

    def drop(self, question: Question, how: Left | None) -> None:
        """The question leaves; whoever works on it may stop. Not counted where it never was a question."""
        if self._questions.pop(question.id, None) is None:
            return
        if how is not None:
            self.left[how] += 1
        del self._sessions[question.session]
        box = self._boxes[question.owner]
        del box[question.id]
        if not box:
            del self._boxes[question.owner]
        self.credit(question, question.held)
        stop, question.stop, question.pull = question.stop, None, None
        question.body, question.answer = {}, None
        question.chunks.clear()
        if stop is not None:
            stop()
        self._ring(question.owner)

    def _supersede(self, owner: Owner) -> None:
        for question in list(self._boxes.get(owner, {}).values()):
            if question.in_vain and not question.named:
                self.drop(question, Left.SUPERSEDED)

    # -- what comes of it ------------------------------------------------------------------------------------------

    def taken(self, question: Question, now: float) -> None:
        """A node has it."""
        question.state, question.since = State.TAKEN, now
        self._ring(question.owner)

    def waits(self, question: Question, now: float) -> None:
        """It waits for a node again."""
        question.state, question.since = State.WAITING, now

    def answered(self, question: Question, answer: bytes | None, now: float) -> None:
        """All of it is here. The memory of a whole `answer` is charged already."""
        question.answer, question.final = answer, True
        self._over(question, State.ANSWERED, now)

    def failed(self, question: Question, fault: Refused, now: float) -> None:
        """There will be no answer, or no more of it."""
        if not question.over:
            question.fault = fault
            self.faults[fault.code if fault.code in _COUNTED else "node_error"] += 1
            self._over(question, State.FAILED, now)

    def piece(self, question: Question, chunk: bytes, now: float) -> None:
        """The next piece of a stream; its memory is charged already."""
        question.chunks.append(chunk)
        question.unread += len(chunk)
        question.since = now
        self._ring(question.owner)

    def _over(self, question: Question, state: State, now: float) -> None:
        question.state, question.since = state, now
        question.stop = question.pull = None
        self._forget_body(question)
        self._ring(question.owner)

    def _forget_body(self, question: Question) -> None:
        self.credit(question, sum(len(value) for value in question.body.values()))
        question.body = {}

    # -- reading ---------------------------------------------------------------------------------------------------

    def find(self, owner: Owner, request_id: str | None, token: str | None, *, stream: bool) -> Question | None:
        """The question whose answer this caller may have next; None where it has asked nothing that is still open.

        Raises Refused when it names a question that is not there, or not its.
        """
        if request_id is None:
            return next((each for each in self._boxes.get(owner, {}).values() if _is_next(each, stream)), None)
        question = self._questions.get(request_id)
        if question is None or not self._may(question, owner, token):
            raise Refused(
                "There is no such question of yours here; its answer was read already, or it has expired.",
                code="question_unknown",
                status=404,
            )
        question.named = True
        question.bound = question.bound or token is not None
        return question

    def _may(self, question: Question, owner: Owner, token: str | None) -> bool:
        if question.owner.key != owner.key:
            return False
        if question.bound or token is not None:
            return same(token, question.token)
        return question.owner == owner

    def bell(self, owner: Owner) -> Bell:
        """What rings when something happens to a question of this owner. Give it back with `hush`."""
        return self._bells.setdefault(owner, Bell())

    def hush(self, owner: Owner) -> None:
        """A listener has left."""
        if owner in self._bells and not self._bells[owner]:
            del self._bells[owner]

    def _ring(self, owner: Owner) -> None:
        bell = self._bells.get(owner)
        if bell is not None:
            bell.ring()


_COUNTED = frozenset(outcome.value for outcome in Outcome) | {"bad_answer", "mailbox_full", "truncated"}
"""What is counted by its name; all that a node may say of its own counts as one thing."""


def _is_next(question: Question, stream: bool) -> bool:
    """Whether it is in the line that this route serves. A stream that was answered whole is in both."""
    if question.named:
        return False
    return question.stream is stream or (question.stream and question.answer is not None)


def _full(message: str) -> Refused:
    return Refused(message, code="mailbox_full", status=429, retry_after=10)


def full() -> Refused:
    """No memory is left for this client."""
    return _full("The relay's mailboxes hold as much as they may, or as much of yours; read your answers, or wait.")

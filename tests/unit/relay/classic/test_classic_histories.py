"""Random histories of clients, thieves and nodes: every answer reaches its question, or nobody."""

from __future__ import annotations

import contextlib
import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from tokenplace.errors import Refused, TokenPlaceError
from tokenplace.relay.classic.polling import Caller
from tokenplace.relay.classic.questions import Owner, Question, digest
from tokenplace.relay.classic.room import Read
from tokenplace.wire.classic import ClassicRequest
from unit.relay.classic.classic_desk import ELSEWHERE, ENVELOPE, ClassicDesk, a_key, records, told
from unit.relay.desk import DONE, Puppet

CLIENTS = ("C", "D")
MODERN = a_key("modern")
NODES = ("K1", "K2")
AT = "198.51.100.200"


@dataclass
class Person:
    """What a client that names nothing remembers: its questions that may still be answered, oldest first."""

    open: deque[str] = field(default_factory=deque)
    came_in_vain: bool = False


class History:
    """One random history."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.desk = ClassicDesk(max_held=256 << 10)
        self.people = {client: Person() for client in CLIENTS}
        self.named: dict[str, tuple[Question, str, str]] = {}
        """Words → the question, its token and whose it is."""
        self.jobs: dict[str, list[tuple[str, str, str]]] = {node: [] for node in NODES}
        """What each polling node has in hand: client, words, request id."""
        self.read: set[str] = set()
        self.made = 0
        self.modern: Puppet = self.desk.modern(1, MODERN, slots=8)
        self.running: list[tuple[int, str]] = []
        for node in NODES:
            self.desk.poll(node, at=AT)

    def step(self) -> None:
        actions = (self.ask, self.ask_by_name, self.poll, self.answer, self.look, self.look_by_name)
        more = (self.steal, self.forge, self.work, self.pass_time, self.cancel)
        self.rng.choice((*actions, *actions, *more))()
        mailboxes = self.desk.room.mailboxes
        assert mailboxes.shares.held == sum(question.held for question in mailboxes)

    # -- clients ---------------------------------------------------------------------------------------------------

    def _ask(self, client: str, *, bound: bool) -> tuple[Question, str, str] | None:
        self.made += 1
        words = f"{self.made}"
        body = {"client_public_key": client, **ENVELOPE, "chat_history": words}
        server = self.rng.choice((*NODES, MODERN))
        with contextlib.suppress(TokenPlaceError):
            question, token = self.desk.room.ask(
                "192.0.2.1", server, body, stream=False, bound=bound, now=self.desk.now
            )
            return question, token, words
        return None

    def ask(self) -> None:
        client = self.rng.choice(CLIENTS)
        person = self.people[client]
        before = list(person.open)
        asked = self._ask(client, bound=False)
        if person.came_in_vain and before:
            person.open.popleft()
            person.came_in_vain = False
        if asked is not None:
            person.open.append(asked[2])

    def ask_by_name(self) -> None:
        client = self.rng.choice(CLIENTS)
        person = self.people[client]
        asked = self._ask(client, bound=True)
        if person.came_in_vain and person.open:
            person.open.popleft()
            person.came_in_vain = False
        if asked is not None:
            question, token, words = asked
            self.named[words] = (question, token, client)

    def look(self) -> None:
        client = self.rng.choice(CLIENTS)
        person = self.people[client]
        try:
            found = self.desk.room.retrieve(Owner(digest(client), "192.0.2.1"), None, None, self.desk.now)
        except Refused:
            person.open.popleft()
            person.came_in_vain = False
            return
        if isinstance(found, Read):
            self.expect(found, person.open.popleft())
            person.came_in_vain = False
        elif found is None:
            assert not person.open
        else:
            person.came_in_vain = True

    def look_by_name(self) -> None:
        if self.named:
            words = self.rng.choice(sorted(self.named))
            question, token, client = self.named[words]
            owner = Owner(digest(client), self.rng.choice(("192.0.2.1", ELSEWHERE)))
            try:
                found = self.desk.room.retrieve(owner, question.id, token, self.desk.now)
            except Refused:
                del self.named[words]
                return
            if isinstance(found, Read):
                del self.named[words]
                self.expect(found, words)

    def cancel(self) -> None:
        if self.named:
            words = self.rng.choice(sorted(self.named))
            question, token, _ = self.named.pop(words)
            with contextlib.suppress(Refused):
                self.desk.room.cancel(question.owner, question.id, token)

    def steal(self) -> None:
        client = self.rng.choice(CLIENTS)
        assert self.desk.room.retrieve(Owner(digest(client), ELSEWHERE), None, None, self.desk.now) is None
        if self.named:
            question, _, client = self.named[self.rng.choice(sorted(self.named))]
            for owner in (question.owner, Owner(digest(client), ELSEWHERE)):
                with pytest.raises(Refused):
                    self.desk.room.retrieve(owner, question.id, None, self.desk.now)

    def expect(self, found: Read, words: str) -> None:
        assert found.answer is not None
        assert f'"re {words}"'.encode() in found.answer, "the answer to another question"
        assert words not in self.read, "twice"
        self.read.add(words)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        node = self.rng.choice(NODES)
        self.jobs[node].clear()  # it works on one at a time: polling again, it has lost what it had
        for job in self.desk.poll(node, at=AT).jobs:
            self.jobs[node].append((job.body["client_public_key"], job.body["chat_history"], job.id))

    def answer(self) -> None:
        node = self.rng.choice(NODES)
        if self.jobs[node]:
            client, words, _ = self.jobs[node].pop()
            self.desk.answer(f"re {words}", client, at=AT)

    def forge(self) -> None:
        for client in CLIENTS:
            with pytest.raises(Refused):
                self.desk.answer("forged", client, at=ELSEWHERE)

    def work(self) -> None:
        for offer in self.modern.offers():
            self.modern.accept(offer.sid)
            self.running.append((offer.sid, str(ClassicRequest.parse(offer.sealed).body["chat_history"])))
        self.rng.shuffle(self.running)
        while self.running and self.rng.random() < 0.7:
            sid, words = self.running.pop()
            parts = records({"status": 200}, {"message": told(f"re {words}")}, {"end": True})
            for number, part in enumerate(parts):
                self.modern.send(sid, number, part)  # type: ignore[arg-type]
            self.modern.finish(sid, len(parts), DONE, free=8 - len(self.running))  # type: ignore[arg-type]

    def pass_time(self) -> None:
        self.desk.tick(self.rng.choice((0.5, 2.0)), awake=(self.modern,))
        self.desk.room.tick(self.desk.now)

    def end(self) -> None:
        """Everything ends, whatever was left lying about."""
        for _ in range(3):
            self.desk.tick(310, awake=(self.modern,))
        mailboxes = self.desk.room.mailboxes
        assert len(mailboxes) == mailboxes.boxes == mailboxes.shares.held == 0
        assert len(self.desk.room.polling) == 0
        assert self.desk.broker.held_bytes == 0
        with pytest.raises(Refused):
            self.desk.room.answer(Caller(AT, b""), "C", told("late"), None, None, self.desk.now)


@pytest.mark.parametrize("seed", range(30))
def test_every_answer_reaches_its_question_or_nobody(seed: int) -> None:
    history = History(seed)
    for _ in range(200):
        history.step()
    assert history.read or history.made < 20
    history.end()

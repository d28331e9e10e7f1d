"""Nodes that poll: who holds which key, what waits for them and what they have taken. Pure.

A key belongs to who registered it first, and for an hour after its holder fell silent to nobody else. A holder is known
by the address it polls from and the invitation it shows, which is all that the original's nodes can give; or by a
`sink_token`, which it brings along when it registers, or is told then and may show later. Once shown, it is asked for
ever after. It is told once only, or whoever shares the holder's address could fetch it and lock the holder out.

The original's nodes send an answer without saying to which question, or even who they are. So a job is never handed
out while the same holder has another one of the same client: what comes for that client can then only be its answer.
They work on one job at a time, in the thread that polls: when such a node polls again, it has given up what it had.
"""

from __future__ import annotations

import random
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, NewType

from tokenplace.errors import Refused
from tokenplace.relay.classic.bounds import MAX_BATCH, MAX_POLLING_NODES, MAX_POLLING_PER_ADDRESS, ClassicTiming
from tokenplace.relay.classic.questions import Bell, Question, digest, same
from tokenplace.wire.limits import MAX_QUEUE_PER_NODE

Key = NewType("Key", str)
"""The short name of a server's public key."""

_REMEMBERED = 4096


class Caller(NamedTuple):
    """Who polls: the address, and the digest of the invitation that was shown."""

    address: str
    invitation: bytes


@dataclass(slots=True, eq=False)
class PollingNode:
    """One node that polls."""

    key: Key
    told: object
    """The key as it was registered, which the original let be any JSON scalar."""
    holder: Caller
    token: bytes
    """Digest of the sink token."""
    heard: float
    untold: str | None
    """The sink token itself until it is told; kept nowhere after that."""
    bound: bool = False
    """Only who shows the token is its holder."""
    waiting: int = 0
    """Its requests that wait here for work now."""
    queue: deque[Question] = field(default_factory=deque)
    taken: dict[str, Question] = field(default_factory=dict)
    bell: Bell = field(default_factory=Bell)

    def tell(self) -> str | None:
        """The sink token, the first time."""
        token, self.untold = self.untold, None
        return token

    def holds(self, caller: Caller, token: str | None) -> bool:
        """Whether this caller is the one who registered the key."""
        if same(token, self.token):
            self.bound = True
            return True
        return not self.bound and token is None and caller == self.holder


class PollingNodes:
    """Everybody who polls."""

    def __init__(self, timing: ClassicTiming, rng: random.Random) -> None:
        self._timing = timing
        self._rng = rng
        self._nodes: dict[Key, PollingNode] = {}
        self._by_address: dict[str, dict[Key, PollingNode]] = {}
        self._former: OrderedDict[Key, tuple[float, PollingNode]] = OrderedDict()
        self._owed: dict[tuple[Caller, bytes], tuple[PollingNode, Question]] = {}
        """What each holder without a token has taken, by the client's key."""
        self._takers: dict[str, PollingNode] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[PollingNode]:
        return iter(list(self._nodes.values()))

    def get(self, key: Key) -> PollingNode | None:
        """Who holds that key now."""
        return self._nodes.get(key)

    # -- who is there ----------------------------------------------------------------------------------------------

    @property
    def ping(self) -> float:
        """In how many seconds an idle node should come again: all of them together come a hundred times a second."""
        return min(max(self._timing.ping_least, len(self._nodes) / 100), self._timing.ping_most)

    @property
    def silence(self) -> float:
        """Seconds of silence after which a node is gone."""
        return max(self._timing.silence, 3 * self.ping)

    def fresh(self, node: PollingNode, now: float) -> bool:
        """Whether clients should be sent to it. One that works on a long answer is silent meanwhile."""
        return node.waiting > 0 or now - node.heard < self.silence

    def by_address(self, now: float) -> list[list[PollingNode]]:
        """The nodes that clients may be sent to, those of one address together."""
        groups = [[node for node in nodes.values() if self.fresh(node, now)] for nodes in self._by_address.values()]
        return [group for group in groups if group]

    def visit(self, caller: Caller, key: Key, told: object, token: str | None, now: float) -> PollingNode:
        """A node polls. Raises Refused when another holds the key, or the address has registered enough of them."""
        node = self._nodes.get(key) or self._returning(key, now)
        if node is None:
            node = self._register(caller, key, told, token, now)
        elif not node.holds(caller, token):
            raise Refused(
                "Another node has registered this key. A node that moved to another address shows its sink_token, "
                "or starts again with a fresh key.",
                code="key_held",
                status=403,
            )
        elif key not in self._nodes:
            self._check_room(node.holder.address)
            del self._former[key]
            self._enter(node)
        node.heard = now
        return node

    def _register(self, caller: Caller, key: Key, told: object, token: str | None, now: float) -> PollingNode:
        self._check_room(caller.address)
        own = token or secrets.token_urlsafe(24)
        untold = own if token is None else None
        node = PollingNode(key, told, caller, digest(own), now, untold, bound=token is not None)
        self._enter(node)
        return node

    def _check_room(self, address: str) -> None:
        if len(self._by_address.get(address, ())) >= MAX_POLLING_PER_ADDRESS:
            why = f"One address may register {MAX_POLLING_PER_ADDRESS} nodes at this relay, and this one has."
        elif len(self._nodes) >= MAX_POLLING_NODES:
            why = "As many nodes poll this relay as it can serve; try another relay."
        else:
            return
        raise Refused(why, code="too_many_nodes", status=429, retry_after=self.silence)

    def _enter(self, node: PollingNode) -> None:
        self._nodes[node.key] = node
        self._by_address.setdefault(node.holder.address, {})[node.key] = node

    def _returning(self, key: Key, now: float) -> PollingNode | None:
        gone, node = self._former.get(key, (0.0, None))
        return node if node is not None and now - gone < self._timing.former else None

    def silent(self, now: float) -> list[PollingNode]:
        """Take out and give who is gone: silent, and with nothing in hand."""
        while self._former and now - next(iter(self._former.values()))[0] >= self._timing.former:
            self._former.popitem(last=False)
        gone = [node for node in self if not (self.fresh(node, now) or node.taken)]
        for node in gone:
            del self._nodes[node.key]
            here = self._by_address[node.holder.address]
            del here[node.key]
            if not here:
                del self._by_address[node.holder.address]
            self._former[node.key] = (now, node)
            if len(self._former) > _REMEMBERED:
                self._former.popitem(last=False)
        return gone

    # -- jobs ------------------------------------------------------------------------------------------------------

    def queue(self, node: PollingNode, question: Question) -> None:
        """A job for a node. Raises Refused when too many wait for it."""
        if len(node.queue) >= MAX_QUEUE_PER_NODE:
            raise Refused(
                f"{len(node.queue)} questions wait for this node already.",
                code="queue_full",
                status=429,
                retry_after=10,
            )
        node.queue.append(question)
        node.bell.ring()

    def again(self, node: PollingNode, question: Question) -> None:
        """A job comes back, to be the next."""
        node.queue.appendleft(question)
        node.bell.ring()

    def take(self, node: PollingNode, most: int) -> list[Question]:
        """Up to `most` jobs, the oldest first, none of a client of whom this holder has one already.

        A node that has taken MAX_BATCH of them gets no more before it answers.
        """
        most = min(most, MAX_BATCH - len(node.taken))
        jobs: list[Question] = []
        kept: deque[Question] = deque()
        while node.queue and len(jobs) < most:
            question = node.queue.popleft()
            if self._blocked(node, question):
                kept.append(question)
                continue
            node.taken[question.id] = question
            self._takers[question.id] = node
            if not node.bound:
                self._owed[node.holder, question.owner.key] = (node, question)
            question.attempts += 1
            jobs.append(question)
        node.queue.extendleft(reversed(kept))
        return jobs

    def _blocked(self, node: PollingNode, question: Question) -> bool:
        return not node.bound and (node.holder, question.owner.key) in self._owed

    def ready(self, node: PollingNode) -> bool:
        """Whether a poll would bring something."""
        return len(node.taken) < MAX_BATCH and any(not self._blocked(node, question) for question in node.queue)

    def owed(self, caller: Caller, client: bytes) -> tuple[PollingNode, Question] | None:
        """What a caller without any name has taken of this client."""
        return self._owed.get((caller, client))

    def taker(self, question: Question) -> PollingNode | None:
        """Who has taken a question."""
        return self._takers.get(question.id)

    def give_up(self, node: PollingNode, question: Question) -> None:
        """The node has it no more: it answered, or never will."""
        if node.taken.pop(question.id, None) is None:
            return
        del self._takers[question.id]
        debt = (node.holder, question.owner.key)
        if self._owed.get(debt) == (node, question):
            del self._owed[debt]
        for each in self._by_address.get(node.holder.address, {}).values():
            if each.queue:  # what was held back for the sake of this one may go now
                each.bell.ring()

    def unqueue(self, node: PollingNode, question: Question) -> None:
        """Nobody wants it any more, and it was not taken yet."""
        if question in node.queue:
            node.queue.remove(question)

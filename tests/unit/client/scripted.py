"""Relays that do what the test says, in front of nodes whose seals are real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from tokenplace.client.door import Directory, Records
from tokenplace.errors import RelayUnreachable
from tokenplace.openai.calls import Call, Final, Head
from tokenplace.sealing.exchange import RecordSealer, open_request
from tokenplace.sealing.identity import Identity
from tokenplace.sealing.keys import KeyRing, SealingPrivateKey
from tokenplace.wire.card import Card, CardBody, ModelCard
from tokenplace.wire.ids import JobId, ModelId, NodeId
from tokenplace.wire.messages import Listing
from tokenplace.wire.request import Kem, RequestHeader
from tokenplace.wire.stream import Record, RecordKind

NOW_MS = 1_700_000_000_000
MODEL = ModelId("m")
WORDS = (b"one ", b"two ", b"three")
Piece = list[Record]
Act = Callable[[list[Piece], int], AsyncGenerator[Record]]


@dataclass(eq=False)
class ScriptedNode:
    """A node that answers every request with the same words."""

    identity: Identity
    keys: KeyRing
    sequence: int = 1
    calls: list[Call] = field(default_factory=list)

    @property
    def id(self) -> NodeId:
        return self.identity.node

    def card(self) -> Card:
        keys = self.keys.public_keys(NOW_MS)
        body = CardBody(self.identity.public, self.sequence, NOW_MS, keys, (ModelCard(MODEL, 2048),))
        return self.identity.sign_card(body)

    def listing(self) -> Listing:
        return Listing(self.card(), slots=1, free=1, queued=0)

    def renew(self) -> None:
        """A restart: other keys, a newer card."""
        self.keys = fresh_keys()
        self.sequence += 1

    def answer(self, sealed: bytes) -> list[Piece]:
        opened = open_request(sealed, self.keys, now_ms=NOW_MS)
        self.calls.append(Call.parse(opened.body))
        sealer = opened.answer()
        return [
            [sealer.nonce_record(), sealer.seal(RecordKind.HEAD, Head(200, "text/plain").pack())],
            *([sealer.seal(RecordKind.DATA, word)] for word in WORDS),
            [self.end(sealer)],
        ]

    def end(self, sealer: RecordSealer) -> Record:
        return sealer.seal(RecordKind.FINAL, Final({"completion_tokens": 3}).pack())


def fresh_keys() -> KeyRing:
    return KeyRing(SealingPrivateKey.generate(now_ms=NOW_MS, kem=Kem.X25519))


def a_node(name: int) -> ScriptedNode:
    return ScriptedNode(Identity(bytes([name]) * 32), fresh_keys())


class ScriptedDoor:
    """One relay. Each `submit` or `resume` takes the next act of the script; the last act is repeated."""

    def __init__(
        self,
        name: str,
        acts: Sequence[Act | Exception] = (),
        *,
        nodes: Sequence[ScriptedNode] = (),
        directory: Directory | Exception | None = None,
        jobs: dict[JobId, list[Piece]] | None = None,
    ) -> None:
        self.name = name
        self.nodes_here = list(nodes)
        self.directory = directory
        self.asked: list[ModelId | None] = []
        self.preferred: list[NodeId | None] = []
        self.calls: list[tuple[str, int]] = []
        self.sent_to: list[NodeId] = []
        self.sealed: list[bytes] = []
        self.cancelled: list[JobId] = []
        self.closed = False
        self._acts = list(acts) or [whole]
        self._jobs = jobs if jobs is not None else {}

    async def nodes(
        self, model: ModelId | None, limit: int, node: NodeId | None = None, prefer: NodeId | None = None
    ) -> Directory:
        self.asked.append(model)
        self.preferred.append(prefer)
        if isinstance(self.directory, Exception):
            raise self.directory
        if self.directory is not None:
            return self.directory
        found = [here.listing() for here in self.nodes_here if node is None or here.listing().card.node == node]
        return Directory(found[:limit], {MODEL: len(self.nodes_here)})

    @asynccontextmanager
    async def submit(self, node: NodeId, sealed: bytes, linger: float) -> AsyncIterator[Records]:
        self.calls.append(("submit", 0))
        self.sent_to.append(node)
        self.sealed.append(sealed)
        act = self._next_act()
        (there,) = [other for other in self.nodes_here if other.id == node]
        job = RequestHeader.parse(sealed).job
        if not isinstance(act, RefusedByNode):
            self._jobs[job] = there.answer(sealed)
        async with aclosing(act(self._jobs.get(job, []), 0)) as records:
            yield records

    @asynccontextmanager
    async def resume(self, node: NodeId, job: JobId, next_record: int, linger: float) -> AsyncIterator[Records]:
        self.calls.append(("resume", next_record))
        async with aclosing(self._next_act()(self._jobs[job], next_record)) as records:
            yield records

    async def cancel(self, node: NodeId, job: JobId) -> None:
        self.cancelled.append(job)

    async def aclose(self) -> None:
        self.closed = True

    def _next_act(self) -> Act:
        act = self._acts.pop(0) if len(self._acts) > 1 else self._acts[0]
        if isinstance(act, Exception):
            raise act
        return act


# -- acts --------------------------------------------------------------------------------------------------------------


async def whole(pieces: list[Piece], start: int) -> AsyncGenerator[Record]:
    """Everything, to the sealed end."""
    for piece in pieces[start:]:
        for record in piece:
            yield record


def upto(count: int, then: Record | Exception | None = None) -> Act:
    """Records before number `count`; then the stream ends, says something of its own, or breaks."""

    async def act(pieces: list[Piece], start: int) -> AsyncGenerator[Record]:
        for piece in pieces[start:count]:
            for record in piece:
                yield record
        if isinstance(then, Exception):
            raise then
        if then is not None:
            yield then

    return act


def hanging(count: int) -> Act:
    """Records before number `count`, then nothing for ever."""

    async def act(pieces: list[Piece], start: int) -> AsyncGenerator[Record]:
        async for record in upto(count)(pieces, start):
            yield record
        await asyncio.get_running_loop().create_future()

    return act


def forged(change: Callable[[list[Record]], Sequence[Record]]) -> Act:
    """All records, after somebody changed them."""

    async def act(pieces: list[Piece], start: int) -> AsyncGenerator[Record]:
        for record in change([record for piece in pieces[start:] for record in piece]):
            yield record

    return act


@dataclass(frozen=True)
class RefusedByNode:
    """The node rejects the request unopened."""

    code: str

    def __call__(self, pieces: list[Piece], start: int) -> AsyncGenerator[Record]:
        return upto(0, told(self.code))(pieces, start)


def told(code: str, message: str = "A sentence.") -> Record:
    """The relay's OUTCOME."""
    return Record(RecordKind.OUTCOME, json.dumps({"code": code, "message": message}).encode())


def notice(payload: bytes) -> Record:
    return Record(RecordKind.NOTICE, payload)


BROKEN = RelayUnreachable("The connection broke.")

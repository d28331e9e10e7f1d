"""A classic room over a desk's broker, with clients and polling nodes that do what the test says."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

from tokenplace.relay.classic.polling import Caller
from tokenplace.relay.classic.questions import Owner, Question, digest
from tokenplace.relay.classic.room import ClassicRoom, Polled, Read
from tokenplace.wire.card import Card, CardBody, ModelCard
from tokenplace.wire.classic import ClassicCard, pack_line
from tokenplace.wire.ids import ModelId
from tokenplace.wire.limits import MAX_RECORD
from tokenplace.wire.stream import Record, RecordKind
from unit.relay.desk import Desk, Puppet

ENVELOPE = {"chat_history": "d29yZHM=", "cipherkey": "a2V5", "iv": "aXY="}
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.9"


def a_key(name: str) -> str:
    return base64.b64encode(f"-----BEGIN PUBLIC KEY-----\n{name}\n-----END PUBLIC KEY-----\n".encode()).decode()


def a_classic_card(name: int, key: str, sequence: int = 1) -> Card:
    body = CardBody(
        identity=bytes([name]) * 32,
        sequence=sequence,
        issued_ms=0,
        keys=(),
        models=(ModelCard(ModelId("m"), 2048),),
        extra={"classic": ClassicCard(key, f"{name:016x}").fields()},
    )
    return Card(body=body, signed=body.pack(), signature=bytes(64))


def records(*lines: dict[str, Any]) -> list[bytes]:
    """Lines of an answer as records."""
    data = b"".join(pack_line(line) for line in lines)
    parts = (data[start : start + MAX_RECORD] for start in range(0, len(data), MAX_RECORD))
    return [Record(RecordKind.CLASSIC, part).pack() for part in parts]


class ClassicDesk(Desk):
    """A desk with the classic routes."""

    def __init__(self, *, max_held: int = 32 << 20, **options: int) -> None:
        super().__init__(**options)
        self.room = ClassicRoom(self.broker, lambda: self.now, rng=random.Random(7), max_held=max_held)

    def modern(self, name: int, key: str, slots: int = 4) -> Puppet:
        return Puppet(self, a_classic_card(name, key), slots)

    def tick(self, seconds: float, *, awake: tuple[Puppet, ...] = ()) -> None:
        until = self.now + seconds
        while self.now < until:
            self.wait(min(0.5, until - self.now), awake=awake)
            self.room.tick(self.now)

    # -- a client --------------------------------------------------------------------------------------------------

    def ask(
        self,
        server: object,
        client: str = "C",
        *,
        at: str = HOME,
        stream: bool = False,
        bound: bool = False,
        size: int = 8,
    ) -> tuple[Question, str]:
        body = {"client_public_key": client, **ENVELOPE, "chat_history": "x" * size}
        return self.room.ask(at, server, body, stream=stream, bound=bound, now=self.now)

    def read(
        self, client: str = "C", *, at: str = HOME, request_id: str | None = None, token: str | None = None
    ) -> Any:
        """What /retrieve gives, None while there is nothing."""
        found = self.room.retrieve(Owner(digest(client), at), request_id, token, self.now)
        return json.loads(found.answer or b"") if isinstance(found, Read) else None

    def read_stream(
        self, client: str = "C", *, at: str = HOME, request_id: str | None = None, token: str | None = None
    ) -> tuple[list[Any], bool]:
        found = self.room.stream_retrieve(Owner(digest(client), at), request_id, token, self.now)
        return ([json.loads(chunk) for chunk in found.chunks], found.final) if isinstance(found, Read) else ([], False)

    # -- a node that polls -----------------------------------------------------------------------------------------

    def poll(self, key: object, *, at: str = HOME, token: str | None = None, batch: int = 1) -> Polled:
        node = self.room.visit(Caller(at, b""), key, token, batch=batch, now=self.now)
        return self.room.hand_out(node, batch, self.now)

    def answer(
        self,
        words: str,
        client: str = "C",
        *,
        at: str = HOME,
        request_id: str | None = None,
        token: str | None = None,
    ) -> bool:
        fields = {**ENVELOPE, "chat_history": words}
        return self.room.answer(Caller(at, b""), client, fields, request_id, token, self.now)


def told(words: str) -> dict[str, str]:
    """The answer that a client reads."""
    return {**ENVELOPE, "chat_history": words}

"""Nodes that lie or break the rules, over real WebSockets: each ends in a named outcome, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest

from puppets import DONE, NONCE, Puppet, Reader, Wires, a_piece, a_request, decline, playing, puppets, unknown, wired
from stage import Program, Stage, get_json, nodes_at
from tokenplace.client.client import Client
from tokenplace.errors import TokenPlaceError
from tokenplace.sealing.identity import Identity
from tokenplace.wire.frames import FrameKind, pack_frame
from tokenplace.wire.ids import Sid
from tokenplace.wire.limits import CREDIT_WINDOW, MAX_FRAMES, MAX_MESSAGE, KiB, MiB
from tokenplace.wire.messages import Closed, Outcome, Status
from tokenplace.wire.stream import PREFIX_BYTES, RecordKind

ASK = [{"role": "user", "content": "one two three"}]


class Told:
    """What a client hears of the relay itself."""

    def __init__(self, wires: Wires, relay: Program) -> None:
        self.outcome = ""
        self.pieces = 0
        self.reader = Reader(wires, relay.url, on_chunk=self._heard)

    def _heard(self, _: Reader, chunk: bytes) -> None:
        kind = RecordKind(chunk[PREFIX_BYTES - 1])
        if kind is RecordKind.OUTCOME:
            self.outcome = json.loads(chunk[PREFIX_BYTES:])["code"]
        self.pieces += kind is RecordKind.DATA


def data(sid: int, number: int, size: int = 16) -> bytes:
    return pack_frame(FrameKind.DATA, a_piece(size), sid=sid, seq=number)


def accept(sid: int) -> bytes:
    return pack_frame(FrameKind.ACCEPT, sid=sid)


ENDLESS = "its message is endless"
LIES: dict[str, Callable[[Sid], bytes]] = {
    "its first record is the second": lambda sid: accept(sid) + data(sid, 1),
    "it sends a record twice": lambda sid: accept(sid) + data(sid, 0) + data(sid, 0),
    "it leaves a record out": lambda sid: accept(sid) + data(sid, 0) + data(sid, 2),
    "it sends what it did not accept": lambda sid: data(sid, 0),
    "it sends more than it was allowed": lambda sid: (
        accept(sid) + b"".join(data(sid, number, 8 * KiB) for number in range(CREDIT_WINDOW // (8 * KiB) + 1))
    ),
    "it answers a job it never took": lambda sid: accept(sid) + data(sid, 0) + accept(sid + 1) + data(sid + 1, 0),
    "it ends with more records than it sent": lambda sid: (
        accept(sid) + pack_frame(FrameKind.END, b'{"code":"done","free":1,"seen":1}', sid=sid, seq=9)
    ),
    "it knows of offers nobody made": lambda sid: pack_frame(
        FrameKind.STATUS, b'{"slots":1,"free":1,"card":null}', sid=sid + 5
    ),
    "it speaks for the relay": lambda sid: pack_frame(FrameKind.JOB, bytes(100), sid=sid),
    "it says what is no frame": lambda _: b"\xff" * 40,
    "it ends inside a frame": lambda sid: data(sid, 0)[:-1],
    "its record carries nothing": lambda sid: accept(sid) + pack_frame(FrameKind.DATA, sid=sid),
    "its message has frames without end": lambda _: pack_frame(FrameKind.PING, bytes(8)) * (MAX_FRAMES + 1),
    "its JSON is none": lambda sid: pack_frame(FrameKind.REJECT, b"{", sid=sid),
    ENDLESS: lambda _: bytes(MAX_MESSAGE + 1),
}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One relay for all of it."""
    stage = Stage(tmp_path_factory.mktemp("lies"))
    try:
        yield stage.relay("--blind")
    finally:
        stage.clear()


def test_nodes_that_lie_lose_their_links_and_their_clients_hear_of_it(busy: Program) -> None:
    """All at once, beside an honest node that serves on."""
    with wired() as wires:
        (honest,) = puppets(wires, busy.url, 1)
        other = Told(wires, busy)
        other.reader.submit(honest.id, a_request()[1])
        wires.until(honest.offers, "the honest node's offer")
        kept = honest.offers()[0].sid
        honest.end.accept(kept, 0)
        honest.piece(kept, 0, a_piece())

        liars = dict(zip(LIES, puppets(wires, busy.url, len(LIES), slots=4), strict=True))
        victims = {lie: Told(wires, busy) for lie in LIES}
        for lie, liar in liars.items():
            victims[lie].reader.submit(liar.id, a_request()[1])
            wires.until(liar.offers, "the offer")
            liar.say(LIES[lie](liar.offers()[0].sid))
        wires.until(lambda: all(liar.gone for liar in liars.values()), "the relay to close their links")
        wires.until(lambda: not any(victim.reader.busy for victim in victims.values()), "the victims' streams to end")
        for lie, liar in liars.items():
            assert liar.gone is not None
            assert liar.gone.code == (1009 if lie == ENDLESS else Closed.VIOLATION), lie
            assert liar.gone.reason, f"the owner of one of whom is known that {lie} does not hear why"
            assert victims[lie].outcome == Outcome.NODE_LOST, lie

        honest.piece(kept, 1, a_piece())
        honest.end.end(kept, 2, DONE, 4)
        honest.flush()
        wires.until(lambda: not other.reader.busy, "the honest answer")
        assert (other.pieces, other.outcome) == (2, "")
    assert get_json(f"{busy.url}/livez") == {"status": "alive"}


@pytest.mark.parametrize("frame", [FrameKind.DRAIN, FrameKind.STATUS])
def test_a_node_that_talks_without_end_is_sent_away_and_its_neighbours_hear_nothing_of_it(
    busy: Program, frame: FrameKind
) -> None:
    talk = pack_frame(frame, b'{"slots":1,"free":1,"card":null}' if frame is FrameKind.STATUS else bytes(8))
    with wired() as wires:
        (honest,) = puppets(wires, busy.url, 1)
        other = Told(wires, busy)
        other.reader.submit(honest.id, a_request()[1])
        wires.until(honest.offers, "the honest node's offer")
        sid = honest.offers()[0].sid
        honest.end.accept(sid, 0)
        (talker,) = puppets(wires, busy.url, 1)
        before, number = busy.rss(), 0
        while talker.gone is None and number < 200:
            talker.say(talk * MAX_FRAMES)
            honest.piece(sid, number, a_piece())
            number += 1
            wires.until(lambda count=number: other.pieces == count, "the honest node's piece")  # type: ignore[misc]
        wires.until(lambda: talker.gone is not None, "the relay to close the talker's link")
        assert talker.gone is not None
        assert talker.gone.code == Closed.VIOLATION
        assert "talk" in talker.gone.reason
        assert busy.rss() - before < 16 * MiB
        honest.end.end(sid, number, DONE, 4)
        honest.flush()
        wires.until(lambda: not other.reader.busy, "the honest answer")
        assert other.outcome == ""


def test_a_node_cannot_show_another_ones_card(busy: Program) -> None:
    with wired() as wires:
        (liar,) = puppets(wires, busy.url, 1)
        stolen = Puppet(wires, busy.url, models=("stolen",))
        liar.end.status(Status(64, 64, stolen.card))
        liar.flush()
        wires.spend(0.2)
        wires.until(lambda: stolen.live, "the other node")
        shown = {node["node"]: node["models"] for node in nodes_at(busy)}
        assert shown[liar.id] == ["puppet"]


def test_the_same_node_twice_is_one_node_and_its_job_has_one_end(busy: Program) -> None:
    """Whoever proved the identity last holds it; the job that ran at the former is asked of the latter."""
    identity = Identity.generate()
    with wired() as wires:
        former = Puppet(wires, busy.url, identity=identity)
        wires.until(lambda: former.live, "the welcome")
        client = Told(wires, busy)
        client.reader.submit(identity.node, a_request()[1])
        wires.until(former.offers, "the offer")
        sid = former.offers()[0].sid
        former.end.accept(sid, 0)
        former.piece(sid, 0, a_piece())
        wires.until(lambda: client.pieces, "the first piece")

        latter = Puppet(wires, busy.url, identity=identity, on_event=unknown)
        wires.until(lambda: former.gone, "the former link to end")
        assert former.gone is not None
        assert former.gone.code == Closed.SUPERSEDED
        wires.until(lambda: not client.reader.busy, "the end")
        assert (client.pieces, client.outcome) == (1, Outcome.NODE_LOST)
        assert [node["node"] for node in nodes_at(busy)].count(latter.id) == 1


def forge(node: Puppet, sid: Sid) -> None:
    """An answer that nobody sealed for this client."""
    node.end.accept(sid, 0)
    node.end.data(sid, 0, NONCE + a_piece())
    node.end.end(sid, 1, DONE, node.slots)
    node.flush()


def say_nothing(node: Puppet, sid: Sid) -> None:
    """An answer of which the node says that it is whole, and that has no sealed end."""
    node.end.accept(sid, 0)
    node.end.data(sid, 0, NONCE)
    node.end.end(sid, 1, DONE, node.slots)
    node.flush()


@pytest.mark.parametrize(
    ("play", "code"), [(forge, "bad_record"), pytest.param(say_nothing, "node_lost", marks=pytest.mark.heavy)]
)
async def test_a_client_believes_no_answer_that_was_not_sealed_for_it(
    stage: Stage, play: Callable[[Puppet, Sid], None], code: str
) -> None:
    relay = stage.relay("--blind")
    with playing(relay.url, play):
        async with Client([relay.url]) as client:
            with pytest.raises(TokenPlaceError) as caught:
                await asyncio.wait_for(client.chat(ASK, model="echo"), 60)
    assert caught.value.code == code


def vanish(node: Puppet, _: Sid) -> None:
    """The process dies with the offer in its hands."""
    node.hang_up()


@pytest.mark.parametrize("play", [decline, pytest.param(vanish, marks=pytest.mark.heavy)])
async def test_a_node_that_fails_before_its_first_piece_is_replaced_by_an_honest_one(
    stage: Stage, play: Callable[[Puppet, Sid], None]
) -> None:
    relay = stage.relay("--blind")
    with playing(relay.url, play, count=2):
        stage.node(relay)
        async with Client([relay.url]) as client:
            for _ in range(3):
                answer = await asyncio.wait_for(client.chat(ASK, model="echo"), 60)
                assert answer["choices"][0]["message"]["content"] == "echo: one two three"

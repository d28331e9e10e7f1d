from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tokenplace.link.ends import NodeEnd
from tokenplace.link.events import Challenged, Offered, Welcomed
from tokenplace.relay.app import Relay
from tokenplace.relay.limits import Budget, Limiter, LocalCounts, read_limits
from tokenplace.relay.policy import Policy
from tokenplace.relay.proof import verify
from tokenplace.sealing.identity import Identity
from tokenplace.wire import routes
from tokenplace.wire.card import Card, CardBody, ModelCard
from tokenplace.wire.frames import FrameKind, pack_control, pack_frame
from tokenplace.wire.ids import ModelId
from tokenplace.wire.limits import MAX_MESSAGE, TIMING
from tokenplace.wire.messages import Hello, Status
from unit.relay.desk import Desk
from unit.relay.fake_time import now, run

HOST = "relay.example"
ME = Identity(b"m" * 32)
OTHER = Identity(b"o" * 32)


def a_card(identity: Identity = ME, sequence: int = 1, model: str = "m") -> Card:
    models = (ModelCard(ModelId(model), 2048),)
    return identity.sign_card(CardBody(identity.public, sequence, issued_ms=0, keys=(), models=models))


def a_hello(nonce: bytes, *, authority: str = HOST, token: str | None = None, slots: int = 1) -> Hello:
    return Hello(a_card(), ME.sign_hello(nonce, authority), authority, slots, token)


class Socket:
    """The node's end of a WebSocket to the relay, without a network."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.end = NodeEnd()
        self.broken = False
        self.inbox.put_nowait({"type": "websocket.connect"})

    async def receive(self) -> dict[str, Any]:
        return await self.inbox.get()

    async def send(self, message: Any) -> None:
        if self.broken:
            raise ConnectionResetError
        self.outbox.put_nowait(dict(message))

    def say(self) -> None:
        while message := self.end.take():
            self.inbox.put_nowait({"type": "websocket.receive", "bytes": message, "text": None})

    async def events(self) -> list[Any]:
        message = await self.outbox.get()
        assert message["type"] == "websocket.send", message
        return list(self.end.receive(message["bytes"], now()))

    async def challenge(self) -> bytes:
        assert (await self.outbox.get())["type"] == "websocket.accept"
        (event,) = await self.events()
        assert isinstance(event, Challenged)
        return event.nonce

    async def join(self, **options: Any) -> None:
        self.end.hello(a_hello(await self.challenge(), **options))
        self.say()
        assert isinstance((await self.events())[0], Welcomed)

    async def closed(self) -> tuple[int, str]:
        while True:
            message = await self.outbox.get()
            if message["type"] == "websocket.close":
                assert len(message["reason"].encode()) <= 123, "a close frame has room for 123 bytes"
                return message["code"], message["reason"]


def here() -> Desk:
    desk = Desk()
    desk.now = now()
    return desk


@asynccontextmanager
async def dialled(
    desk: Desk, *, tokens: Sequence[str] = (), names: Sequence[str] = (), host: str = HOST
) -> AsyncIterator[Socket]:
    """A socket to a relay; it breaks at the end of the block."""
    relay = Relay(desk.broker, verify, tokens=tokens, names=names, clock=now)
    scope = {"type": "websocket", "path": routes.LINK, "headers": [(b"host", host.encode())]}
    socket = Socket()

    async def serve() -> None:
        await relay(scope, socket.receive, socket.send)

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        yield socket
        socket.inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})
    assert len(desk.broker.roster) == 0


def test_a_node_that_proves_itself_is_listed_and_gets_its_work() -> None:
    async def main() -> None:
        desk = here()
        async with dialled(desk) as socket:
            await socket.join(slots=3)
            assert [node.id for node in desk.broker.roster] == [ME.node]
            ticket = desk.submit(ME.node)
            (offer,) = await socket.events()
            assert isinstance(offer, Offered)
            socket.end.accept(offer.sid, 0)
            socket.end.data(offer.sid, 0, b"piece")
            socket.say()
            while not ticket.pieces:
                await asyncio.sleep(0)
            assert ticket.take() == b"piece"

    run(main)


@pytest.mark.parametrize(
    ("authority", "names"), [(HOST.upper(), []), ("other-name.example", ["Other-Name.example", "third.example"])]
)
def test_a_relay_answers_to_its_names_or_without_any_to_the_host_that_was_dialled(
    authority: str, names: list[str]
) -> None:
    async def main() -> None:
        async with dialled(here(), names=names) as socket:
            await socket.join(authority=authority)

    run(main)


def test_a_relay_that_knows_its_names_does_not_believe_the_host_header() -> None:
    async def main() -> None:
        async with dialled(here(), names=["Other-Name.example"]) as socket:
            with pytest.raises(AssertionError):
                await socket.join(authority=HOST)

    run(main)


def test_the_name_that_a_stranger_dialled_is_told_to_it_and_not_to_the_log() -> None:
    with capture_logs() as logs:
        code, reason = refused(None, authority="a sentence")
    assert code == 4003
    assert "a sentence" in reason
    (line,) = [line for line in logs if line["event"] == "node.refused"]
    assert "--name" in line["reason"]
    assert "sentence" not in str(logs)


def refused(hello: Hello | None, *, tokens: Sequence[str] = (), authority: str = HOST) -> tuple[int, str]:
    """How the relay closes the link on this hello, its signature renewed unless it is meant to be wrong."""

    async def main() -> tuple[int, str]:
        desk = here()
        async with dialled(desk, tokens=tokens) as socket:
            nonce = await socket.challenge()
            given = hello or a_hello(nonce, authority=authority)
            if not given.signature:
                given = replace(given, signature=ME.sign_hello(nonce, given.authority))
            socket.end.hello(given)
            socket.say()
            closing = await socket.closed()
            assert desk.broker.roster.get(ME.node) is None
            return closing

    return run(main)


def test_a_challenge_answered_by_somebody_else_is_not_believed() -> None:
    code, reason = refused(Hello(a_card(), bytes(64), HOST, 1))
    assert (code, "not signed" in reason) == (4003, True)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 4096])
def test_a_signature_of_any_length_is_only_a_wrong_one(length: int) -> None:
    given = Hello(a_card(), b"s" * length if length else b"s", HOST, 1)
    assert refused(given)[0] == 4003


def test_an_answer_for_another_relay_is_not_taken_here() -> None:
    code, reason = refused(None, authority="evil.example")
    assert code == 4003
    assert "--name" in reason


@pytest.mark.parametrize("authority", ["é" * 300, "\ud800", "\0\n", "x" * 50_000])
def test_no_name_a_node_dials_breaks_the_relay(authority: str) -> None:
    given = Hello(a_card(), b"s", authority, 1)
    assert refused(given)[0] == 4003


def test_a_card_that_its_identity_did_not_sign_is_not_taken() -> None:
    code, reason = refused(Hello(replace(a_card(), signature=bytes(64)), b"", HOST, 1))
    assert (code, "card" in reason) == (4003, True)


@pytest.mark.parametrize("token", [None, "", "wrong", "invitation ", "\ud800"])
def test_without_its_invitation_nobody_serves(token: str | None) -> None:
    code, reason = refused(Hello(a_card(), b"", HOST, 1, token), tokens=["invitation", "second"])
    assert (code, "invitation" in reason) == (4003, True)


def test_any_of_the_invitations_will_do() -> None:
    async def main() -> None:
        for token in ("first", "second"):
            async with dialled(here(), tokens=["first", "second"]) as socket:
                await socket.join(token=token)

    run(main)


def test_a_link_that_does_not_introduce_itself_in_time_is_closed() -> None:
    async def main() -> None:
        async with dialled(here()) as socket:
            began = now()
            await socket.challenge()
            code, _ = await socket.closed()
            assert (code, now() - began) == (4000, TIMING.hello)

    run(main)


@pytest.mark.parametrize(
    "message",
    [
        {"bytes": None, "text": "hello"},
        {"text": "hello"},
        {"bytes": b"junk"},
        {"bytes": bytes(MAX_MESSAGE + 1)},
        {"bytes": pack_frame(FrameKind.STATUS, pack_control(Status(1, 1).fields()))},
        {"bytes": pack_frame(FrameKind.HELLO, b"[1]")},
        {"bytes": pack_frame(FrameKind.HELLO, pack_control({"card": 5}))},
        {"bytes": pack_frame(FrameKind.HELLO, b"{" * 60_000)},
    ],
)
def test_what_is_no_introduction_closes_the_link(message: dict[str, Any]) -> None:
    async def main() -> None:
        async with dialled(here()) as socket:
            await socket.challenge()
            socket.inbox.put_nowait({"type": "websocket.receive", **message})
            assert (await socket.closed())[0] == 4000

    run(main)


@pytest.mark.parametrize(
    "frame",
    [
        pack_frame(FrameKind.DATA, b"piece", sid=1),
        pack_frame(FrameKind.HELLO, b"{}"),
        pack_frame(FrameKind.STATUS, b"{}"),
        pack_frame(FrameKind.STATUS, pack_control({"slots": 1, "free": 2, "card": None})),
        pack_frame(FrameKind.WELCOME, b"{}"),
    ],
)
def test_a_member_that_breaks_the_rules_is_put_out(frame: bytes) -> None:
    async def main() -> None:
        desk = here()
        async with dialled(desk) as socket:
            await socket.join()
            socket.inbox.put_nowait({"type": "websocket.receive", "bytes": frame})
            assert (await socket.closed())[0] == 4000

    run(main)


def test_a_new_card_is_checked_like_the_first() -> None:
    async def main() -> None:
        desk = here()
        async with dialled(desk) as socket:
            await socket.join()
            socket.end.status(Status(1, 1, a_card(sequence=2, model="new")))
            socket.say()
            while "new" not in desk.broker.roster.models():
                await asyncio.sleep(0)
            socket.end.status(Status(1, 1, replace(a_card(sequence=3, model="forged"), signature=bytes(64))))
            socket.say()
            assert (await socket.closed())[0] == 4003
            assert "forged" not in desk.broker.roster.models()

    run(main)


def test_another_node_s_card_is_not_shown_in_its_place() -> None:
    async def main() -> None:
        desk = here()
        async with dialled(desk) as socket:
            await socket.join()
            socket.end.status(Status(1, 1, a_card(OTHER, sequence=9, model="foreign")))
            socket.end.ping(now())
            socket.say()
            await socket.events()
            assert desk.broker.roster.models() == {"m": 1}

    run(main)


def test_a_second_link_of_the_same_node_ends_the_first() -> None:
    async def main() -> None:
        desk = here()
        async with dialled(desk) as first:
            await first.join()
            async with dialled(desk) as second:
                await second.join()
                assert await first.closed() == (4001, "superseded")
                assert len(desk.broker.roster) == 1
                first.inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})

    run(main)


def test_a_silent_link_is_closed() -> None:
    async def main() -> None:
        desk = here()
        async with dialled(desk) as socket:
            await socket.join()
            asyncio.get_running_loop().call_later(TIMING.silence, lambda: desk.broker.tick(now()))
            assert (await socket.closed())[0] == 4008

    run(main)


def test_a_socket_that_breaks_under_our_writing_is_a_node_that_left() -> None:
    async def main() -> None:
        desk = here()
        async with dialled(desk) as socket:
            await socket.join()
            socket.broken = True
            ticket = desk.submit(ME.node)
            while desk.broker.roster.pick(None, 1):
                await asyncio.sleep(0)
            assert not ticket.job.ended, "it may come back"
            desk.wait(TIMING.return_grace_seen)

    run(main)


async def turned_away(socket: Socket) -> tuple[int, str]:
    assert (await socket.outbox.get())["type"] == "websocket.accept"
    return await socket.closed()


def test_an_address_that_dials_too_often_hears_when_to_come_back() -> None:
    async def main() -> None:
        limiter = Limiter({Budget.LINKS: read_limits("2/minute", "x")}, LocalCounts(now))
        relay = Relay(here().broker, verify, clock=now, policy=Policy(limiter=limiter))
        for attempt in range(3):
            async with dialled_from(relay, "198.51.100.1") as socket:
                if attempt < 2:
                    await socket.challenge()
                else:
                    code, reason = await turned_away(socket)
                    assert code == 4003
                    assert "60 seconds" in reason
        async with dialled_from(relay, "198.51.100.2") as socket:
            await socket.challenge()

    run(main)


def test_an_address_with_as_many_links_as_it_may_have_is_told_so() -> None:
    async def main() -> None:
        relay = Relay(here().broker, verify, clock=now, policy=Policy(links_per_address=1))
        async with dialled_from(relay, "198.51.100.1") as first:
            await first.challenge()
            async with dialled_from(relay, "198.51.100.1") as second:
                code, reason = await turned_away(second)
                assert (code, reason) == (
                    4003,
                    "One address may hold 1 links to this relay, and this one does already.",
                )
        async with dialled_from(relay, "198.51.100.1") as third:
            await third.challenge()

    run(main)


@asynccontextmanager
async def dialled_from(relay: Relay, address: str) -> AsyncIterator[Socket]:
    """A socket from somewhere; it breaks at the end of the block."""
    headers = [(b"host", HOST.encode())]
    scope = {"type": "websocket", "path": routes.LINK, "headers": headers, "client": (address, 1)}
    socket = Socket()
    async with asyncio.TaskGroup() as group:
        group.create_task(as_task(relay, scope, socket))
        yield socket
        socket.inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})


async def as_task(relay: Relay, scope: dict[str, Any], socket: Socket) -> None:
    await relay(scope, socket.receive, socket.send)

"""The short way of the node link's messages gives what the library's way gives, and leaves the rest to it."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from tokenplace.cli.crowd import Crowd
from tokenplace.cli.http_protocol import HttpProtocol
from tokenplace.cli.link_protocol import Gate, Inbox, LinkProtocol, frame_size, lone_frame
from tokenplace.cli.serving import bind, serving
from tokenplace.relay.asgi import DIRECT, Receive, Scope, Send
from tokenplace.wire.limits import MAX_MESSAGE

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Peer:
    """The far end of a link whose messages go straight to `taken`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, taken: list[bytes]) -> None:
        self._reader = reader
        self._writer = writer
        self.taken = taken

    async def send(self, data: bytes, cut: int | None = None) -> None:
        for start in range(0, len(data), cut or len(data)):
            self._writer.write(data[start : start + (cut or len(data))])
            await self._writer.drain()
            if cut:
                await asyncio.sleep(0)

    async def heard(self) -> bytes:
        """The next frame, and nothing of what follows."""
        first, length = await self._reader.readexactly(2)
        return bytes((first, length)) + await self._reader.readexactly(length & 0x7F)

    async def until(self, count: int) -> list[bytes]:
        async with asyncio.timeout(20):
            while len(self.taken) < count:
                await asyncio.sleep(0.01)
        return self.taken


@asynccontextmanager
async def a_peer() -> AsyncIterator[Peer]:
    taken: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        scope["state"][DIRECT](taken.append)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    listener = bind("127.0.0.1", 0)
    async with serving(app, listener):
        reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        yield Peer(reader, writer, taken)
        writer.close()


def frame(payload: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=mask)


@pytest.mark.parametrize("cut", [None, 3, 125, 4096])
async def test_messages_arrive_whole_however_the_network_cuts_them(cut: int | None) -> None:
    dice = random.Random(1)
    messages = [dice.randbytes(size) for size in (0, 1, 125, 126, 127, 5_000, 65_535, 65_536)]
    async with a_peer() as peer:
        await peer.send(b"".join(map(frame, messages)), cut)
        assert await peer.until(len(messages)) == messages


@pytest.mark.parametrize("cut", [None, 1, 7])
async def test_fragments_and_pings_between_whole_messages_keep_their_places(cut: int | None) -> None:
    parts = [
        frame(b"one"),
        frame(b"t", fin=False),
        frame(b"there?", Opcode.PING),
        frame(b"w", Opcode.CONT, fin=False),
        frame(b"o", Opcode.CONT),
        frame(b"three"),
    ]
    async with a_peer() as peer:
        await peer.send(b"".join(parts), cut)
        assert await peer.until(3) == [b"one", b"two", b"three"]
        assert await peer.heard() == frame(b"there?", Opcode.PONG, mask=False)


async def test_a_frame_that_claims_more_than_a_message_may_have_closes_the_link_at_once() -> None:
    async with a_peer() as peer:
        await peer.send(b"\x82\xff" + (MAX_MESSAGE + 1).to_bytes(8, "big") + b"mask")
        goodbye = await peer.heard()
    assert (goodbye[0], goodbye[2:4]) == (0x88, (1009).to_bytes(2, "big"))
    assert peer.taken == []


@pytest.mark.parametrize("bad", [frame(b"plain", mask=False), b"\xc2\x80mask", b"\x83\x80mask"])
async def test_a_frame_that_breaks_the_rules_closes_the_link(bad: bytes) -> None:
    async with a_peer() as peer:
        await peer.send(bad)
        goodbye = await peer.heard()
    assert (goodbye[0], goodbye[2:4]) == (0x88, (1002).to_bytes(2, "big"))


async def test_a_goodbye_is_answered_and_nothing_is_taken_after_it() -> None:
    async with a_peer() as peer:
        await peer.send(frame((1000).to_bytes(2, "big"), Opcode.CLOSE) + frame(b"too late"))
        assert (await peer.heard())[0] == 0x88
    assert peer.taken == []


def test_a_header_that_is_not_whole_tells_nothing() -> None:
    whole = frame(bytes(70_000))
    assert frame_size(whole, 0) == (14, 70_000)
    assert [frame_size(whole[:length], 0) for length in (0, 1, 9)] == [None] * 3


async def test_the_http_connection_that_became_a_link_is_let_go() -> None:
    """A relay holds thousands of links that do nothing: whatever one keeps, it keeps thousands of times."""
    async with a_peer() as peer:
        await peer.send(frame(b"first"))
        assert await peer.until(1) == [b"first"]
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, HttpProtocol)]


async def test_a_gate_holds_everybody_until_it_is_opened() -> None:
    gate = Gate()
    await gate.wait()
    gate.clear()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(gate.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert not waiting[1].done()
        gate.set()
    assert [task.cancelled() for task in waiting] == [True, False, False]


async def test_an_inbox_gives_what_was_put_in_its_order_and_waits_for_more() -> None:
    inbox = Inbox()
    assert inbox.empty()
    for item in "ab":
        inbox.put_nowait(item)
    assert not inbox.empty()
    assert [await inbox.get(), await inbox.get()] == ["a", "b"]
    async with asyncio.TaskGroup() as group:
        lost = group.create_task(inbox.get())
        await asyncio.sleep(0)
        lost.cancel()
        await asyncio.sleep(0)
        waiting = group.create_task(inbox.get())
        await asyncio.sleep(0)
        inbox.put_nowait("c")
    assert waiting.result() == "c"


class Mute(asyncio.Transport):
    """A connection whose far end reads nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed


def a_protocol(taken: list[bytes]) -> tuple[LinkProtocol, Mute]:
    """A link whose door has not answered yet."""
    config = uvicorn.Config(nobody_s_app, ws_per_message_deflate=False, ws_ping_interval=None, ws_max_size=MAX_MESSAGE)
    config.load()
    protocol = LinkProtocol(config=config, server_state=ServerState(), app_state={}, crowd=Crowd(1))
    transport = Mute()
    protocol.connection_made(transport)
    return protocol, transport


async def nobody_s_app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        scope["state"][DIRECT](scope["state"]["taken"])
        await receive()


async def an_open_link(taken: list[bytes]) -> tuple[LinkProtocol, Mute]:
    protocol, transport = a_protocol(taken)
    protocol.app_state["taken"] = taken.append
    protocol.data_received(HANDSHAKE)
    while not transport.written.endswith(b"\r\n\r\n") or protocol._taker is None:
        await asyncio.sleep(0)
    transport.written.clear()
    return protocol, transport


async def test_pings_of_a_peer_that_does_not_read_grow_nothing_and_the_last_is_answered() -> None:
    protocol, transport = await an_open_link([])
    protocol.pause_writing()
    for number in range(5000):
        protocol.data_received(frame(b"%d" % number, Opcode.PING))
    assert transport.written == b""
    protocol.resume_writing()
    assert transport.written == frame(b"4999", Opcode.PONG, mask=False)
    protocol.data_received(frame(b"now", Opcode.PING))
    assert transport.written.endswith(frame(b"now", Opcode.PONG, mask=False))
    protocol.connection_lost(None)


async def test_a_message_in_a_hundred_thousand_fragments_takes_no_more_than_its_bytes() -> None:
    taken: list[bytes] = []
    protocol, _ = await an_open_link(taken)
    protocol.data_received(frame(b"a", fin=False))
    for _ in range(100_000):
        protocol.data_received(frame(b"", Opcode.CONT, fin=False))
    protocol.data_received(frame(b"b", Opcode.CONT, fin=False) + frame(b"c", Opcode.CONT))
    assert taken == [b"abc"]
    protocol.data_received(frame(b"d", fin=False) + frame(b"e", Opcode.CONT, fin=False))
    assert len(protocol.frames) <= 2
    protocol.connection_lost(None)


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\ncontent-length: 5\r\n\r\n", b"nonsense\r\n\r\n", HANDSHAKE.replace(b"GET", b"PUT"), b""],
)
async def test_the_server_can_stop_whatever_became_of_a_handshake(said: bytes) -> None:
    protocol, transport = a_protocol([])
    if said:
        protocol.data_received(said)
        assert transport.written.startswith(b"HTTP/1.1 4")
        assert b"\r\n\r\n{" in transport.written
    protocol.shutdown()
    assert transport.closed
    protocol.connection_lost(None)


async def test_a_door_that_lets_nobody_in_says_so_in_json() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        await receive()
        await send({"type": "websocket.close"})

    listener = bind("127.0.0.1", 0)
    async with serving(app, listener):
        reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        writer.write(HANDSHAKE)
        async with asyncio.timeout(20):
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 403")
    lines = head.lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"content-")] == [
        b"content-type: application/json",
        b"content-length: %d" % len(body),
    ]
    assert json.loads(body)["error"]["code"] == "refused"


@settings(deadline=None, database=None)
@given(
    st.sampled_from([0x82, 0x81, 0x02, 0x89]),
    st.booleans(),
    st.sampled_from([0, 1, 125, 126, 300, 65_535, 65_536]),
    st.sampled_from([-1, 0, 1]),
)
def test_a_frame_alone_is_what_the_general_way_would_cut(first: int, masked: bool, length: int, more: int) -> None:
    kind = length if length < 126 else 126 if length < 1 << 16 else 127
    size = b"" if kind < 126 else length.to_bytes(2 if kind == 126 else 8, "big")
    head = bytes((first, (0x80 if masked else 0) | kind)) + size + bytes(4 if masked else 0)
    data = (head + bytes(length))[: more or None] if more < 0 else head + bytes(length + more)
    cut = frame_size(data, 0)
    whole = cut is not None and sum(cut) == len(data)
    alone = whole and first == 0x82 and masked and length < 1 << 16
    assert lone_frame(data) == (len(head) if alone else 0)


@settings(deadline=None, database=None)
@given(st.binary(max_size=20))
def test_any_bytes_are_a_frame_alone_or_not(data: bytes) -> None:
    cut = frame_size(data, 0)
    start = lone_frame(data)
    assert not start or cut == (start, len(data) - start)

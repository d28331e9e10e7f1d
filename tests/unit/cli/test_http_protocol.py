"""What strangers send, over real sockets, against the server that relay and gateway use."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tokenplace.cli.crowd import on_this_machine
from tokenplace.cli.http_protocol import MAX_HEAD, MAX_HEADERS, Bounds
from tokenplace.cli.serving import bind, serving
from tokenplace.relay.address import Client
from tokenplace.relay.asgi import Receive, Scope, Send, respond

PATIENCE = 20.0
GET = b"GET %s HTTP/1.1\r\nhost: relay.example\r\n%s\r\n"

App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass
class Seen:
    """What reached the application."""

    paths: list[str] = field(default_factory=list)
    headers: list[dict[bytes, bytes]] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)


def an_app(seen: Seen) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.paths.append(scope["path"])
        seen.headers.append(dict(scope["headers"]))
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            seen.left.set()
        elif scope["path"] == "/two":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            await send({"type": "http.response.body", "body": b"two"})
        elif scope["path"] == "/big":
            await respond(send, 200, bytes(16 << 20), b"text/plain")
        elif scope["path"] == "/pour":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(1000):
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        elif scope["path"] == "/early":
            await respond(send, 413, b"no", b"text/plain")
        else:
            size, more = 0, True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    seen.left.set()
                    return
                size += len(message.get("body", b""))
                more = message.get("more_body", False)
            seen.bodies.append(size)
            await respond(send, 200, scope["path"].encode(), b"text/plain")

    return app


class Wire:
    """A client that sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read(-1)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One answer with a length."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return int(head[0].split()[1]), headers, body


@dataclass
class Here:
    """A server and what it saw."""

    port: int
    seen: Seen
    wires: list[Wire] = field(default_factory=list)

    async def dial(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire


@asynccontextmanager
async def served(*, spared: Callable[[Client], bool] = on_this_machine, **bounds: Any) -> AsyncIterator[Here]:
    seen = Seen()
    with bind("127.0.0.1", 0) as listener:
        here = Here(listener.getsockname()[1], seen)
        async with serving(an_app(seen), listener, Bounds(**bounds), spared=spared):
            try:
                yield here
            finally:
                for wire in here.wires:
                    wire.writer.close()


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


async def test_a_head_that_trickles_is_given_up() -> None:
    async with served(head=1.0) as here:
        wire = await here.dial()
        await wire.say(b"GET / HTTP/1.1\r\nhost:")
        assert error_of(await wire.rest()) == (408, "request_timeout")
        assert here.seen.paths == []


async def test_a_second_head_that_trickles_is_given_up_too() -> None:
    async with served(head=1.0) as here:
        wire = await here.dial()
        await wire.say(GET % (b"/one", b""))
        assert (await wire.answer())[0] == 200
        await wire.say(b"GET /two HTTP/1.1\r\n")
        assert error_of(await wire.rest()) == (408, "request_timeout")


async def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async with served(head=0.3) as here:
        assert await (await here.dial()).rest() == b""


async def test_a_body_that_trickles_is_given_up_and_the_door_told() -> None:
    async with served(body=0.3) as here:
        wire = await here.dial()
        await wire.say(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        assert error_of(await wire.rest()) == (408, "request_timeout")
        async with asyncio.timeout(PATIENCE):
            await here.seen.left.wait()


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * (MAX_HEADERS + 1) + b"\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 600_000, 431, "headers_too_large"),
        (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "bad_http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_http"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "bad_http"),
        (b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "bad_http"),
        (b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_http"),
        (b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n", 400, "bad_http"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nHost: y\r\n\r\n", 400, "bad_host"),
        (b"GET / HTTP/1.0\r\nhost: x\r\nhost: x\r\n\r\n", 400, "bad_host"),
    ],
)
async def test_a_head_out_of_bounds_is_refused_in_json(head: bytes, status: int, code: str) -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(head)
        assert error_of(await wire.rest()) == (status, code)
        assert here.seen.paths == []


async def test_headers_in_the_trailer_of_a_body_are_bounded_too() -> None:
    async with served() as here:
        wire = await here.dial()
        chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
        await wire.say(chunked + b"x: y\r\n" * (MAX_HEADERS + 1) + b"\r\n")
        assert error_of(await wire.rest()) == (431, "headers_too_large")


async def test_a_request_after_another_without_waiting_is_answered_in_order() -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(b"".join(GET % (b"/%d" % number, b"") for number in range(20)))
        for number in range(20):
            status, _, body = await wire.answer()
            assert (status, body) == (200, b"/%d" % number)


async def test_nonsense_after_a_request_never_lands_in_its_answer() -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(GET % (b"/stream", b""))
        async with asyncio.timeout(PATIENCE):
            begun = await wire.reader.readuntil(b"begun\r\n")
        await wire.say(b"nonsense\r\n\r\n")
        rest = await wire.rest()
        assert b"HTTP/1.1 4" not in begun + rest
        assert not rest.endswith(b"0\r\n\r\n"), "a broken stream must look broken"
        async with asyncio.timeout(PATIENCE):
            await here.seen.left.wait()


async def test_who_closes_its_sending_half_still_gets_its_answer() -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(GET % (b"/one", b""))
        wire.writer.write_eof()
        answer = await wire.rest()
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"/one")


async def test_who_closes_under_a_stream_has_left_it() -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(GET % (b"/stream", b""))
        async with asyncio.timeout(PATIENCE):
            await wire.reader.readuntil(b"begun\r\n")
            wire.writer.write_eof()
            await here.seen.left.wait()


async def test_a_refusal_is_heard_by_a_client_that_is_still_sending() -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n" + b"a" * 500_000)
        assert (await wire.answer())[0] == 413
        await wire.say(GET % (b"/next", b""))
        assert (await wire.answer())[0] == 200


async def test_a_refused_request_cannot_go_on_for_ever() -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 500000000\r\n\r\n")
        assert (await wire.answer())[0] == 413
        with pytest.raises(ConnectionError):  # noqa: PT012 - it may take several writes to be told
            for _ in range(2000):
                await wire.say(b"a" * 65536)
            raise RuntimeError("the server took 125 MiB of a request that it had refused")


async def test_one_connection_too_many_is_told_to_come_back() -> None:
    async with served(connections=4) as here:
        for _ in range(4):
            wire = await here.dial()
            await wire.say(GET % (b"/stream", b""))
            async with asyncio.timeout(PATIENCE):
                await wire.reader.readuntil(b"begun\r\n")
        answer = await (await here.dial()).rest()
        assert error_of(answer) == (503, "too_many_connections")
        assert b"retry-after: " in answer


async def test_in_a_crowd_no_idle_connection_is_kept() -> None:
    async with served(connections=4) as here:
        for _ in range(3):
            await (await here.dial()).say(GET % (b"/stream", b""))
        wire = await here.dial()
        await wire.say(GET % (b"/one", b""))
        assert b"connection: close" in await wire.rest()


async def test_a_hundred_clients_that_say_nothing_keep_nobody_out() -> None:
    async with served(head=5.0) as here:
        idle = [socket.create_connection(("127.0.0.1", here.port)) for _ in range(100)]
        try:
            wire = await here.dial()
            await wire.say(GET % (b"/one", b""))
            assert (await wire.answer())[0] == 200
        finally:
            for each in idle:
                each.close()


UPGRADE = b"upgrade: websocket\r\nconnection: upgrade\r\n"
KEY = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n" + UPGRADE, 400, "bad_handshake"),
        (b"GET / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n" + UPGRADE, 400, "bad_handshake"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n" + UPGRADE, 405, "method_not_allowed"),
        (b"GET /?" + b"y" * 12_000 + b" HTTP/1.1\r\nhost: x\r\n" + UPGRADE + KEY, 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + UPGRADE + b"z: " + b"y" * 20_000 + b"\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + UPGRADE, 400, "bad_handshake"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nsec-websocket-key: short\r\n" + UPGRADE, 400, "bad_handshake"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + UPGRADE + KEY.replace(b"13", b"8"), 426, "bad_handshake"),
        (b"GET / HTTP/1.1\r\n" + UPGRADE + KEY, 400, "bad_host"),
    ],
)
async def test_a_websocket_that_cannot_begin_is_refused_at_once(asked: bytes, status: int, code: str) -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(asked + b"\r\n")
        answer = await wire.rest()
        assert error_of(answer) == (status, code)
        assert b"application/json" in answer
        assert (b"allow: GET" in answer) == (status == 405)
        assert here.seen.paths == []


async def test_a_websocket_behind_a_request_that_is_not_answered_yet_is_none() -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(GET % (b"/stream", b""))
        async with asyncio.timeout(PATIENCE):
            await wire.reader.readuntil(b"begun\r\n")
            await wire.say(GET % (b"/", UPGRADE + KEY))
            assert b"101" not in await wire.rest()
            await here.seen.left.wait()


@pytest.mark.parametrize(
    "asked", [GET % (b"/one", b"upgrade: h2c\r\nconnection: upgrade\r\n"), b"GET /one HTTP/1.0\r\n" + UPGRADE + b"\r\n"]
)
async def test_who_wishes_for_another_protocol_is_answered_in_this_one_and_that_was_all(asked: bytes) -> None:
    """The parser reads nothing more after such a request: what came next would wait for ever."""
    async with served() as here:
        wire = await here.dial()
        await wire.say(asked)
        answer = await wire.rest()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer


@pytest.mark.parametrize("begun", [b"0\r\nx: ", b"1;x=", b"1\r\na\r\n0\r\nx: "])
@pytest.mark.parametrize("path", [b"/", b"/early"])
async def test_a_trailer_that_does_not_end_is_given_up(path: bytes, begun: bytes) -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%s" % (path, begun))
        if path == b"/early":
            assert (await wire.answer())[0] == 413
        with pytest.raises(ConnectionError):  # noqa: PT012 - it may take several writes to be told
            for _ in range(400):
                await wire.say(b"a" * MAX_HEAD)
            raise RuntimeError("the server took 12 MiB of a trailer")


async def test_a_trailer_never_passes_for_a_header() -> None:
    async with served() as here:
        wire = await here.dial()
        chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
        await wire.say(chunked + b"x-forwarded-for: 192.0.2.1\r\n\r\n")
        assert (await wire.answer())[0] == 200
        assert here.seen.bodies == [1]
        assert b"x-forwarded-for" not in here.seen.headers[0]


@pytest.mark.parametrize(
    ("asked", "unread", "unread_stream"),
    [
        (GET % (b"/big", b""), 0.3, 60.0),
        (GET % (b"/big", b"") * 2, 0.3, 60.0),
        (GET % (b"/big", b"connection: close\r\n"), 0.3, 60.0),
        (GET % (b"/pour", b""), 60.0, 0.3),
    ],
)
async def test_who_never_reads_its_answer_is_let_go(asked: bytes, unread: float, unread_stream: float) -> None:
    async with served(unread=unread, unread_stream=unread_stream) as here:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect(("127.0.0.1", here.port))
            sock.sendall(asked)
            sock.setblocking(False)
            with pytest.raises(ConnectionError):  # noqa: PT012 - a cut connection is told to whoever still sends on it
                async with asyncio.timeout(PATIENCE):
                    while True:
                        sock.send(b"\r\n")
                        await asyncio.sleep(0.05)


async def test_who_reads_slowly_is_not_let_go() -> None:
    async with served(unread=1.0) as here:
        wire = await here.dial()
        await wire.say(GET % (b"/big", b""))
        size = 0
        async with asyncio.timeout(PATIENCE):
            while size < 16 << 20:
                size += len(await wire.reader.read(512 << 10))
                await asyncio.sleep(0.05)  # this is the slowness: twice the time in which a mute reader is cut
        await wire.say(GET % (b"/one", b""))


async def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    async with served() as here:
        wire = await here.dial()
        await wire.say(b"GET /two HTTP/1.0\r\n\r\n")
        head, _, body = (await wire.rest()).partition(b"\r\n\r\n")
        assert body == b"one two"
        assert b"transfer-encoding" not in head
        wire = await here.dial()
        await wire.say(b"GET /one HTTP/1.0\r\n\r\n")
        assert (await wire.answer())[2] == b"/one"


async def test_one_address_has_its_share_of_the_connections_and_no_more() -> None:
    async with served(spared=lambda _: False, connections=100) as here:
        idle = [await here.dial() for _ in range(64)]
        answer = await (await here.dial()).rest()
        assert error_of(answer) == (429, "too_many_connections")
        assert b"retry-after: " in answer
        idle[0].writer.close()
        async with asyncio.timeout(PATIENCE):
            while True:
                wire = await here.dial()
                await wire.say(GET % (b"/one", b""))
                if (await wire.answer())[0] == 200:
                    break

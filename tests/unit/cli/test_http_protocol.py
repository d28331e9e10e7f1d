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

from tokenplace.cli.http_protocol import MAX_HEADERS, Bounds
from tokenplace.cli.serving import bind, serving
from tokenplace.relay.asgi import Receive, Scope, Send, respond

PATIENCE = 20.0
GET = b"GET %s HTTP/1.1\r\nhost: relay.example\r\n%s\r\n"

App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass
class Seen:
    """What reached the application."""

    paths: list[str] = field(default_factory=list)
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
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            seen.left.set()
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
async def served(**bounds: Any) -> AsyncIterator[Here]:
    seen = Seen()
    with bind("127.0.0.1", 0) as listener:
        here = Here(listener.getsockname()[1], seen)
        async with serving(an_app(seen), listener, Bounds(**bounds)):
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

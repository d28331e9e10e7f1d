from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tokenplace.client.door import HttpDoor, parse_directory
from tokenplace.errors import Draining, JobUnknown, NodeUnknown, QueueFull, Refused, RelayUnreachable, WireError
from tokenplace.wire.ids import job_id_of
from tokenplace.wire.limits import MAX_RECORD
from tokenplace.wire.stream import CONTENT_TYPE, Record, RecordKind
from unit.client.scripted import MODEL, a_node

NODE = a_node(1)
JOB = job_id_of(b"j" * 16)
RECORD = Record(RecordKind.DATA, b"sealed")


@asynccontextmanager
async def says(*parts: bytes) -> AsyncIterator[HttpDoor]:
    """A door to something on this machine that answers every request with these bytes."""

    served: list[asyncio.Task[None] | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
            writer.write_eof()
            await reader.read()
        except OSError:
            pass  # the door has heard enough
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        door = HttpDoor(f"http://127.0.0.1:{port}/")
        try:
            yield door
        finally:
            await door.aclose()
            await asyncio.gather(*filter(None, served))
            await asyncio.sleep(0)


def http(status: str, body: bytes, *headers: str, content_type: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1") + body


def refusal(code: str) -> bytes:
    return json.dumps({"error": {"message": "A sentence.", "type": "t", "param": None, "code": code}}).encode()


async def resumed(door: HttpDoor) -> list[Record]:
    async with door.resume(NODE.id, JOB, 3, 5) as records:
        return [record async for record in records]


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://relay.example/", "https://relay.example"),
        ("relay.example:8443", "https://relay.example:8443"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("https://relay.example/path/?query#part", "https://relay.example/path"),
    ],
)
async def test_an_address_is_read_as_people_write_it(url: str, name: str) -> None:
    door = HttpDoor(url)
    assert door.name == name
    await door.aclose()


@pytest.mark.parametrize("url", ["", "http://", "ftp://relay.example", "http://[::1", "http://h:port", "http://a\0b"])
def test_what_is_no_address_says_how_one_looks(url: str) -> None:
    with pytest.raises(WireError, match=r"looks like https://relay\.example"):
        HttpDoor(url)


# -- what a relay may answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("draining", Draining),
        ("job_unknown", JobUnknown),
        ("node_unknown", NodeUnknown),
        ("queue_full", QueueFull),
        ("job_exists", Refused),
    ],
)
async def test_a_refusal_comes_with_its_code_its_status_and_its_time_to_wait(code: str, kind: type[Refused]) -> None:
    async with says(http("429 Too Many", refusal(code), "retry-after: 7")) as door:
        with pytest.raises(kind) as refused:
            await resumed(door)
    error = refused.value
    assert (type(error), error.code, error.status, error.retry_after) == (kind, code, 429, 7.0)
    assert error.message == "A sentence."


@pytest.mark.parametrize("retry_after", ["", "soon", "-1", "\xb2", "Wed, 21 Oct 2026 07:28:00 GMT", "1.5"])
async def test_a_time_to_wait_that_is_no_number_is_none(retry_after: str) -> None:
    async with says(http("429 Too Many", refusal("queue_full"), f"retry-after: {retry_after}")) as door:
        with pytest.raises(QueueFull) as refused:
            await resumed(door)
    assert refused.value.retry_after is None


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": "text"}', b'{"error": {}}', b"\xff", b"[" * 60_000]
)
async def test_a_refusal_that_cannot_be_read_is_told_by_its_status(body: bytes) -> None:
    async with says(http("502 Bad Gateway", body)) as door:
        with pytest.raises(Refused) as refused:
            await resumed(door)
    assert (refused.value.code, refused.value.status) == ("relay_error", 502)


async def test_an_endless_refusal_is_not_read_to_its_end() -> None:
    head = b"HTTP/1.1 500 No\r\nconnection: close\r\n\r\n"
    async with says(head, *[b"x" * 65_536] * 20) as door:
        with pytest.raises(Refused, match="500"):
            await resumed(door)


async def test_nobody_at_the_address_is_unreachable() -> None:
    async with says() as door:
        pass
    door = HttpDoor(door.name)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: door.nodes(None, 8),
        lambda: resumed(door),
        lambda: door.cancel(NODE.id, JOB),
    ]
    for call in calls:
        with pytest.raises(RelayUnreachable, match="cannot be reached"):
            await call()
    await door.aclose()


async def test_a_redirect_is_not_followed() -> None:
    async with says(http("302 Found", b"", "location: https://evil.example/")) as door:
        with pytest.raises(Refused) as refused:
            await door.nodes(None, 8)
    assert refused.value.status == 302


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_records_are_cut_from_the_bytes_however_they_come() -> None:
    body = RECORD.pack() * 3
    for cut in (1, 4, 5, 6, len(body) - 1):
        async with says(http("200 OK", body, content_type=CONTENT_TYPE)[: -len(body)], body[:cut], body[cut:]) as door:
            assert await resumed(door) == [RECORD] * 3


async def test_a_stream_that_breaks_gives_its_whole_records_first() -> None:
    whole = http("200 OK", RECORD.pack() * 2, content_type=CONTENT_TYPE)
    seen = []
    async with says(whole[:-3]) as door, door.resume(NODE.id, JOB, 3, 5) as records:
        seen.append(await anext(records))
        with pytest.raises(RelayUnreachable):
            await anext(records)
    assert seen == [RECORD]


@pytest.mark.parametrize("junk", [b"\0\0\0\5\x7fwords", (MAX_RECORD + 1).to_bytes(4, "big") + b"\1"])
async def test_what_is_no_record_ends_the_stream(junk: bytes) -> None:
    async with says(http("200 OK", RECORD.pack() + junk, content_type=CONTENT_TYPE)) as door:
        with pytest.raises(WireError):
            await resumed(door)


async def test_a_web_page_that_says_200_to_everything_is_no_relay() -> None:
    page = http("200 OK", b"<html>Buy this domain</html>", content_type="text/html")
    async with says(page) as door:
        with pytest.raises(RelayUnreachable, match=r"no token\.place relay"):
            await resumed(door)
    async with says(page) as door:
        with pytest.raises(RelayUnreachable, match=r"no token\.place relay"):
            await door.nodes(None, 8)


# -- the directory -----------------------------------------------------------------------------------------------------


def test_entries_that_cannot_be_read_are_passed_over() -> None:
    good = NODE.listing()
    entries: list[object] = [5, None, [], {}, {"card": "x"}, {**good.fields(), "slots": "many"}, good.fields()]
    directory = parse_directory(json.dumps({"nodes": entries, "models": {"m": 1}, "draining": True}).encode(), "relay")
    assert directory.listings == [good]
    assert directory.models == {MODEL: 1}
    assert directory.draining


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"5",
        b"{}",
        b'{"nodes": []}',
        b'{"nodes": 5, "models": {}}',
        b'{"nodes": null, "models": {}}',
        b'{"nodes": [], "models": []}',
        b'{"nodes": [], "models": {"m": "x"}}',
        b'{"nodes": [], "models": {"m": null}}',
        b'{"nodes": [], "models": {"m": 1e999}}',
        b'{"nodes": [], "models": {"m": NaN}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_directory_is_no_relay(content: bytes) -> None:
    with pytest.raises(RelayUnreachable, match=r"no token\.place relay"):
        parse_directory(content, "relay")

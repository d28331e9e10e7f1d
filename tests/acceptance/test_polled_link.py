"""A node behind a proxy that lets no WebSocket pass serves all the same, by plain requests."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

from balancer import Balancer
from stage import Program, Stage, all_free, get_json, nodes_at, until
from tokenplace.client.client import Client
from tokenplace.client.sync import SyncClient
from tokenplace.node.checkup import network
from tokenplace.node.checkup.finding import Verdict

WORDS = " ".join(f"word{number}" for number in range(400))


class Strict(Balancer):
    """Refuses whoever wants another protocol, and passes everything else on as it is."""

    refused = 0

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()
            return
        if b"\r\nupgrade:" in head.lower():
            self.refused += 1
            writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()
            return
        again = asyncio.StreamReader()
        again.feed_data(head)
        pump = asyncio.ensure_future(_feed(reader, again))
        self.writers.add(writer)
        try:
            await super()._accept(again, writer)
        finally:
            pump.cancel()
            self.writers.discard(writer)

    def __init__(self, relay: Program) -> None:
        self.writers: set[asyncio.StreamWriter] = set()
        super().__init__(relay)

    def cut(self) -> None:
        """Break every connection that is open now."""

        def close() -> None:
            for writer in self.writers:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(close)


async def _feed(source: asyncio.StreamReader, sink: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            sink.feed_data(data)
    sink.feed_eof()


@pytest.fixture
def relay(stage: Stage) -> Program:
    return stage.relay()


@pytest.fixture
def proxy(relay: Program) -> Iterator[Strict]:
    strict = Strict(relay)
    try:
        yield strict
    finally:
        strict.close()


def a_node(stage: Stage, relay: Program, proxy: Strict, *, delay: float = 0.0, flags: tuple[str, ...] = ()) -> Program:
    node = stage.start(
        "node", ["node", "--engine", "echo", "--relay", proxy.url, *flags], {"TOKEN_PLACE_ECHO_DELAY": str(delay)}
    )
    stage.up(node, lambda: nodes_at(relay))
    return node


async def test_answers_stream_over_plain_requests(stage: Stage, relay: Program, proxy: Strict) -> None:
    node = a_node(stage, relay, proxy)
    assert proxy.refused >= 1
    async with Client([relay.url]) as client:
        for text in ("hello", WORDS):
            answer = await client.chat([{"role": "user", "content": text}])
            assert answer["choices"][0]["message"]["content"] == f"echo: {text}"
        several = await asyncio.gather(*(client.chat([{"role": "user", "content": WORDS}]) for _ in range(6)))
        assert all(each["choices"][0]["message"]["content"].endswith("word399") for each in several)
    until(lambda: "by polling" in node.text, "the owner to be told")


def test_leaving_still_frees_the_slot(stage: Stage, relay: Program, proxy: Strict) -> None:
    a_node(stage, relay, proxy, delay=0.2)
    with SyncClient([relay.url]) as client:
        stream = client.stream([{"role": "user", "content": WORDS}])
        next(stream)
        assert not all_free(relay)
        stream.close()  # type: ignore[attr-defined]
        until(lambda: all_free(relay), "the slot to be free", patience=15.0)


async def test_a_stream_survives_the_proxy_s_cutting(stage: Stage, relay: Program, proxy: Strict) -> None:
    a_node(stage, relay, proxy, delay=0.01)
    pieces = []
    async with Client([relay.url]) as client:
        async for chunk in client.stream([{"role": "user", "content": WORDS}]):
            pieces += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
            if len(pieces) in (20, 60):
                proxy.cut()
    assert "".join(pieces) == f"echo: {WORDS}"


def test_a_node_that_may_not_serve_is_told_why(stage: Stage) -> None:
    relay = stage.relay(env={"TOKEN_PLACE_RELAY_SERVER_TOKEN": "secret-of-the-relay"})
    strict = Strict(relay)
    try:
        node = stage.start("node", ["node", "--engine", "echo", "--relay", strict.url])
        until(lambda: "with an invitation only" in node.text, "the reason to be told")
        assert nodes_at(relay) == []
    finally:
        strict.close()


async def test_the_doctor_says_that_polling_works_where_no_websocket_passes(relay: Program, proxy: Strict) -> None:
    found = (await network.relay(proxy.url, None))[-1]
    assert (found.name, found.verdict) == ("link", Verdict.HINT)
    assert "by polling" in found.seen
    assert "Upgrade" in found.todo


@pytest.mark.parametrize(("method", "path"), [("GET", "/" + "0" * 32), ("POST", "/" + "0" * 32), ("GET", "")])
def test_who_has_no_link_is_told_so(relay: Program, method: str, path: str) -> None:
    request = urllib.request.Request(
        f"{relay.url}/relay/v2/link{path}", b"" if method == "POST" else None, method=method
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    with refused.value:
        assert refused.value.code == (410 if path else 405)
    assert get_json(f"{relay.url}/livez") == {"status": "alive"}

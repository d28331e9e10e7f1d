"""A node's links to relays that are not what they should be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenplace.node.links import Links
from tokenplace.node.runs import Runs
from tokenplace.node.standing import LinkStep, RelayState
from tokenplace.sealing.identity import Identity
from tokenplace.wire.card import Card, CardBody
from tokenplace.wire.limits import TIMING


def a_card(identity: Identity) -> Card:
    return identity.sign_card(CardBody(identity.public, 1, 0, (), ()))


@asynccontextmanager
async def sending_on_to(url: str) -> AsyncIterator[str]:
    """The address of a relay that sends everybody on."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_relay_that_sends_the_node_to_no_name_leaves_the_other_links_alone() -> None:
    identity = Identity(bytes(32))
    runs = Runs(slots=1, timing=TIMING, start=lambda *_: None, stop=lambda _: None)
    links = Links(
        runs, identity=identity, card=lambda: a_card(identity), token=None, timing=TIMING, clock=time.monotonic
    )
    async with sending_on_to("ws://relay..example/relay/v2/link") as url, asyncio.timeout(20):
        relay = RelayState(url, since=0.0)
        async with asyncio.TaskGroup() as group:
            staying = group.create_task(links.stay(relay))
            while relay.step is not LinkStep.WAITING:
                await asyncio.sleep(0.01)
            assert "looked up" in relay.detail
            staying.cancel()

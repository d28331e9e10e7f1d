"""Reading a relay's public list of nodes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stage import free_port
from tokenplace.errors import RelayUnreachable
from tokenplace.node.counts import Counts
from tokenplace.node.demand import Demand, ask_demand, read_demand
from tokenplace.node.lookout import look_around
from tokenplace.node.standing import LinkStep, RelayState
from tokenplace.wire.ids import NodeId

ME = NodeId("a" * 32)
NOBODY = Demand(listed=False, set_aside=False, elsewhere=(), rivals=0)


def node(id: str, models: Any, free: Any = 1, slots: Any = 1, queued: Any = 0, **more: Any) -> dict[str, Any]:
    return {"node": id, "models": models, "free": free, "slots": slots, "queued": queued, **more}


def read(*nodes: Any) -> Demand:
    return read_demand({"nodes": list(nodes)}, ME, {"mine"})


def test_it_finds_itself_and_sees_whether_it_is_set_aside() -> None:
    assert read(node(ME, ["mine"])).listed
    assert not read(node(ME, ["mine"])).set_aside
    assert read(node(ME, ["mine"], breaker="open")).set_aside
    assert not read(node("b", ["mine"])).listed


def test_models_that_others_work_with_are_told_the_most_wanted_first() -> None:
    seen = read(
        node("b", ["big"], free=0, slots=1), node("c", ["huge"], free=0, slots=4, queued=3), node("d", ["idle"])
    )
    assert seen.elsewhere == ("huge", "big")


def test_others_with_the_same_model_count_while_they_have_a_free_slot() -> None:
    seen = read(node("b", ["mine"]), node("c", ["mine", "x"], free=2, slots=4), node("d", ["mine"], free=0))
    assert seen.rivals == 2
    assert "mine" not in seen.elsewhere


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "nodes",
        {},
        {"nodes": None},
        {"nodes": {"a": 1}},
        {"nodes": [None, 1, "x", {}]},
        {"nodes": [node("b", None, "x", True, -5)]},
        {"nodes": [node("b", [1, None, {}], 0, 10**12)]},
    ],
)
def test_what_is_no_list_of_nodes_says_nothing(content: Any) -> None:
    assert read_demand(content, ME, {"mine"}) == NOBODY


def test_a_name_that_could_write_on_a_terminal_is_not_shown() -> None:
    assert read(node("b", ["\x1b[2Jowned"], free=0)).elsewhere == ()
    assert len(read(node("b", ["x" * 5000], free=0)).elsewhere[0]) < 100


async def test_a_relay_that_is_not_there_is_told() -> None:
    with pytest.raises(RelayUnreachable):
        await ask_demand(f"http://127.0.0.1:{free_port()}", ME, {"mine"})


@asynccontextmanager
async def a_list(body: bytes) -> AsyncIterator[str]:
    """A relay that has nothing but its list."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("body", [b"<html>", b"[" * 100_000, b'"' + b"x" * (3 * 1024 * 1024) + b'"'])
async def test_what_is_no_list_at_all_is_told(body: bytes) -> None:
    async with a_list(body) as url:
        with pytest.raises(RelayUnreachable):
            await ask_demand(url, ME, {"mine"})


async def test_a_node_that_waits_reads_the_lists_of_the_relays_that_took_it() -> None:
    async with a_list(json.dumps({"nodes": [node(ME, ["mine"])]}).encode()) as url:
        taken, away = RelayState(url, LinkStep.CONNECTED), RelayState(url, LinkStep.WAITING)
        counts = Counts(0.0)
        looking = asyncio.create_task(
            look_around([taken, away], counts, me=ME, models=lambda: ("mine",), clock=lambda: 1000.0)
        )
        async with asyncio.timeout(20):
            while taken.demand is None:
                await asyncio.sleep(0.02)
        looking.cancel()
    assert (taken.demand, away.demand) == (Demand(listed=True, set_aside=False, elsewhere=(), rivals=0), None)

"""What stands still, is cut off or has another time: each job ends in a named outcome, each token comes once."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from cable import cabled
from stage import Program, Stage, all_free, metric, nodes_at, until
from tokenplace.client.client import Client
from tokenplace.errors import TokenPlaceError

WORDS = " ".join(f"word{number}" for number in range(120))
ASK = [{"role": "user", "content": WORDS}]
WHOLE = f"echo: {WORDS}"
BOUND = 100.0


async def told(client: Client, *, after: int = 0, then: Callable[[], object] | None = None) -> str:
    """The text of an answer; `then` is called once `after` pieces were seen."""
    text, seen = "", 0
    async for chunk in client.stream(ASK, model="echo"):
        for choice in chunk["choices"]:
            piece = choice["delta"].get("content") or ""
            text += piece
            seen += bool(piece)
            if then is not None and seen == after:
                then()
                then = None
    assert then is None, "the answer ended before it was to be disturbed"
    return text


@pytest.mark.heavy
async def test_two_hundred_streams_survive_the_death_of_one_of_two_relays(stage: Stage) -> None:
    first, second = stage.relay("--blind", name="first"), stage.relay("--blind", name="second")
    for number in range(4):
        stage.node(first, second, delay=0.3, flags=["--slots", "64"], name=f"node-{number}")
    begun = ended = left = 0

    def begins() -> None:
        nonlocal begun, left
        begun += 1
        if begun == 200:
            left = 200 - ended
            first.kill()

    async def ask(client: Client) -> str:
        nonlocal ended
        text = await told(client, after=3, then=begins)
        ended += 1
        return text

    async with AsyncExitStack() as stack:
        nodes = [node["node"] for node in nodes_at(first)]  # fifty clients each, so that none waits for a slot
        made = (Client([first.url, second.url], pins=[nodes[number % 4]]) for number in range(200))
        clients = [await stack.enter_async_context(client) for client in made]
        async with asyncio.timeout(BOUND):
            answers = await asyncio.gather(*map(ask, clients))
    assert Counter(answers) == {WHOLE: 200}
    assert left > 100, "too few were under way for this to show anything"
    assert metric(second, "tokenplace_relay_resumed_total") >= left
    until(lambda: all_free(second), "every slot to be free")


@pytest.mark.heavy
async def test_a_relay_that_stands_still_is_left_for_another_and_used_again(stage: Stage) -> None:
    first, second = stage.relay("--blind", name="first"), stage.relay("--blind", name="second")
    stage.node(first, second, delay=0.02)
    async with Client([first.url, second.url]) as client:
        try:
            async with asyncio.timeout(BOUND):
                assert await told(client, after=20, then=lambda: first.kill(signal.SIGSTOP)) == WHOLE
        finally:
            first.kill(signal.SIGCONT)
    until(lambda: len(nodes_at(first)) == 1, "the node to be back at the first", patience=60.0)
    async with Client([first.url]) as client:
        assert await told(client) == WHOLE


@pytest.mark.heavy
async def test_a_node_that_stands_still_for_a_moment_goes_on(stage: Stage) -> None:
    relay = stage.relay("--blind")
    node = stage.node(relay, delay=0.02)

    def stand_still() -> None:
        node.kill(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(6.0, node.kill, signal.SIGCONT)

    async with Client([relay.url]) as client, asyncio.timeout(BOUND):
        assert await told(client, after=20, then=stand_still) == WHOLE


@pytest.mark.heavy
async def test_a_node_that_stands_still_for_good_is_an_error_with_a_name(stage: Stage) -> None:
    relay = stage.relay("--blind")
    node = stage.node(relay, delay=0.02)
    try:
        async with Client([relay.url]) as client, asyncio.timeout(BOUND):
            with pytest.raises(TokenPlaceError) as caught:
                await told(client, after=20, then=lambda: node.kill(signal.SIGSTOP))
        assert caught.value.code == "node_lost"
    finally:
        node.kill(signal.SIGCONT)
    until(lambda: all_free(relay), "the node to be back with a free slot", patience=60.0)


@pytest.mark.heavy
@pytest.mark.parametrize("where", ["node", "client"])
async def test_a_network_that_stands_still_for_a_moment_loses_no_token(stage: Stage, where: str) -> None:
    relay = stage.relay("--blind")
    with cabled(relay.url) as cable:
        dial(stage, relay, cable.url if where == "node" else relay.url)

        def stand_still() -> None:
            cable.hold()
            asyncio.get_running_loop().call_later(6.0, cable.mend)

        async with Client([cable.url if where == "client" else relay.url]) as client, asyncio.timeout(BOUND):
            assert await told(client, after=20, then=stand_still) == WHOLE


@pytest.mark.heavy
async def test_a_link_whose_bytes_are_swallowed_is_dialled_anew_and_the_stream_goes_on(stage: Stage) -> None:
    """As when a router forgets a connection: neither end is told, and only what is dialled anew gets through."""
    relay = stage.relay("--blind")
    with cabled(relay.url) as cable:
        dial(stage, relay, cable.url)
        async with Client([relay.url]) as client, asyncio.timeout(BOUND):
            assert await told(client, after=20, then=cable.swallow) == WHOLE
        assert cable.dialled >= 2


@pytest.mark.heavy
async def test_a_client_whose_bytes_are_swallowed_comes_back_for_the_rest(stage: Stage) -> None:
    relay = stage.relay("--blind")
    stage.node(relay, delay=0.02)
    with cabled(relay.url) as cable:
        async with Client([cable.url], linger=40.0) as client, asyncio.timeout(BOUND):
            assert await told(client, after=20, then=cable.swallow) == WHOLE


@pytest.mark.heavy
async def test_a_link_that_is_cut_again_and_again_loses_no_token(stage: Stage) -> None:
    relay = stage.relay("--blind")
    with cabled(relay.url) as cable:
        dial(stage, relay, cable.url)
        async with Client([relay.url]) as client, asyncio.timeout(BOUND):
            loop = asyncio.get_running_loop()
            for cut in range(3):
                loop.call_later(2.0 * cut + 1.0, cable.cut)
            assert await told(client) == WHOLE
        assert cable.dialled >= 3


@pytest.mark.heavy
@pytest.mark.parametrize("hours", [-2, 2])
async def test_a_node_with_another_time_is_told_as_that(stage: Stage, hours: int) -> None:
    """Its keys are of another hour for every client, or it takes every request for a replay: nobody waits in vain."""
    relay = stage.relay("--blind")
    shifted = f"import time; own = time.time_ns; time.time_ns = lambda: own() + {hours} * 3600 * 10**9"
    stage.start("late", ["node", "--engine", "echo", "--relay", relay.url], prelude=shifted)
    until(lambda: nodes_at(relay), "the node to join: the link does not depend on the time of day")
    async with Client([relay.url]) as client, asyncio.timeout(BOUND):
        with pytest.raises(TokenPlaceError) as caught:
            await told(client)
        assert caught.value.code == "clock_skew"
    stage.node(relay, name="on-time")
    async with Client([relay.url]) as client, asyncio.timeout(BOUND):
        for _ in range(4):
            assert await told(client) == WHOLE, "and one whose clock is right answers in its place"


def dial(stage: Stage, relay: Program, url: str) -> Program:
    """A node that dials the relay by another address."""
    node = stage.start("node", ["node", "--engine", "echo", "--relay", url], {"TOKEN_PLACE_ECHO_DELAY": "0.06"})
    stage.up(node, lambda: nodes_at(relay))
    return node

"""Several relays as one over a real store: any of them serves any client and any node, whoever of them dies."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from balancer import Balancer, balanced
from stage import Program, Stage, all_free, get_json, metric, nodes_at, until
from store import Store, stored
from tokenplace.client.client import Client
from tokenplace.errors import TokenPlaceError

WORDS = " ".join(f"word{number}" for number in range(120))
ASK = [{"role": "user", "content": WORDS}]
WHOLE = f"echo: {WORDS}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with stored(tmp_path / "store") as store:
        yield store


def replicas(stage: Stage, store: Store, *flags: str) -> list[Program]:
    """Two relays that know each other."""
    relays = [stage.relay("--store", store.url, *(flags or ["--blind"]), name=name) for name in ("here", "there")]
    until(lambda: all(health(relay)["replicas"] == 1 for relay in relays), "the replicas to meet")
    return relays


def dialling(stage: Stage, front: Balancer, *, delay: float = 0.0) -> None:
    """A node that knows one address only."""
    stage.start("node", ["node", "--engine", "echo", "--relay", front.url], {"TOKEN_PLACE_ECHO_DELAY": str(delay)})


def health(relay: Program) -> dict[str, Any]:
    content: dict[str, Any] = get_json(f"{relay.url}/healthz")
    return content


def everywhere(*relays: Program, nodes: int = 1) -> None:
    until(lambda: all(len(nodes_at(relay)) == nodes for relay in relays), f"every replica to know {nodes} nodes")


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


async def test_a_client_at_one_replica_is_answered_by_a_node_at_another(stage: Stage, store: Store) -> None:
    here, there = replicas(stage, store)
    stage.node(there)
    everywhere(here, there)
    async with Client([here.url]) as client:
        assert await told(client) == WHOLE
        answer = await client.chat(ASK, model="echo")
        assert answer["choices"][0]["message"]["content"] == WHOLE
        assert [served.id for served in await client.models()] == ["echo"]
    assert metric(there, "tokenplace_relay_jobs_total") == 2
    assert metric(here, "tokenplace_relay_jobs_total") == 0
    assert [node["here"] for node in nodes_at(here)] == [False]
    until(lambda: all_free(here) and all_free(there), "every slot to be free, and known as free")


def test_a_gateway_at_one_replica_reaches_a_node_at_another(stage: Stage, store: Store) -> None:
    here, there = replicas(stage, store, "--host=127.0.0.1")
    stage.node(there)
    everywhere(here, there)
    body = json.dumps({"model": "echo", "messages": ASK}).encode()
    request = urllib.request.Request(
        f"{here.url}/v1/chat/completions", body, {"content-type": "application/json", "connection": "close"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert json.load(response)["choices"][0]["message"]["content"] == WHOLE
    served = get_json(f"{here.url}/v1/models")["data"]
    assert "echo" in [model["id"] for model in served]


async def test_leaving_cancels_at_the_other_replica_too(stage: Stage, store: Store) -> None:
    here, there = replicas(stage, store)
    stage.node(there, delay=0.05)
    everywhere(here, there)
    body = {"model": "echo", "messages": ASK, "stream": True}
    async with Client([here.url]) as client, client.ask("/v1/chat/completions", body) as answer:
        async for _ in answer.chunks():
            break
        assert not all_free(there)
    until(lambda: all_free(there), "the slot to be free", patience=20)


async def test_a_replica_killed_under_its_client_is_replaced_by_the_other(stage: Stage, store: Store) -> None:
    here, there = replicas(stage, store)
    stage.node(there, delay=0.01)
    everywhere(here, there)
    async with Client([here.url, there.url]) as client:
        assert await told(client, after=20, then=here.kill) == WHOLE
        assert await told(client) == WHOLE
    assert metric(there, "tokenplace_relay_resumed_total") >= 1
    until(lambda: health(there)["replicas"] == 0, "the dead replica to be forgotten")


async def test_a_replica_killed_under_its_node_gives_the_answer_to_the_other(stage: Stage, store: Store) -> None:
    here, there = replicas(stage, store)
    with balanced(there, here) as front:
        dialling(stage, front, delay=0.02)
        everywhere(here, there)
        async with Client([here.url]) as client:
            assert await told(client, after=20, then=there.kill) == WHOLE
        assert [node["here"] for node in nodes_at(here)] == [True]


@pytest.mark.heavy
async def test_a_replica_that_hangs_gives_its_clients_to_the_other(stage: Stage, store: Store) -> None:
    here, there = replicas(stage, store)
    stage.node(there, delay=0.01)
    everywhere(here, there)
    async with Client([here.url, there.url]) as client:
        try:
            assert await told(client, after=20, then=lambda: here.kill(signal.SIGSTOP)) == WHOLE
        finally:
            here.kill(signal.SIGCONT)
    until(lambda: health(here)["replicas"] == health(there)["replicas"] == 1, "the replicas to meet again")


async def test_without_the_store_each_replica_serves_its_own_nodes(stage: Stage, store: Store) -> None:
    here, there = replicas(stage, store)
    stage.node(there, delay=0.01)
    everywhere(here, there)
    async with Client([there.url]) as client:
        assert await told(client, after=20, then=lambda: store.end(signal.SIGKILL)) == WHOLE, "a stream goes on"
        assert await told(client) == WHOLE, "and the next begins"
    until(lambda: health(here)["store"] == health(there)["store"] == "unavailable", "the loss to be noticed")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{here.url}/relay/v2/nodes?model=echo", timeout=5)
    with refused.value as response:
        assert response.status == 503
        assert int(response.headers["retry-after"]) > 0
        assert json.load(response)["error"]["code"] == "store_unavailable"
    async with Client([here.url]) as client:
        with pytest.raises(TokenPlaceError):
            await told(client)
    store.start()
    until(lambda: health(here)["store"] == health(there)["store"] == "connected", "the store to be found again")
    everywhere(here, there)
    async with Client([here.url]) as client:
        assert await told(client) == WHOLE


@pytest.mark.parametrize("how", ["killed", pytest.param("stopped", marks=pytest.mark.heavy)])
async def test_a_stream_over_the_store_survives_the_store(stage: Stage, store: Store, how: str) -> None:
    here, there = replicas(stage, store)
    stage.node(there, delay=0.02)
    everywhere(here, there)

    def disturb() -> None:
        if how == "killed":
            store.end(signal.SIGKILL)
            store.start()
        else:
            store.send(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(5.0, store.send, signal.SIGCONT)

    async with Client([here.url]) as client:
        assert await told(client, after=20, then=disturb) == WHOLE
    assert metric(there, "tokenplace_relay_jobs_total") >= 1


async def test_a_relay_starts_and_serves_while_its_store_is_away(stage: Stage, store: Store) -> None:
    store.end()
    relay = stage.relay("--store", store.url, "--blind")
    stage.node(relay)
    assert health(relay)["store"] == "unavailable"
    async with Client([relay.url]) as client:
        assert await told(client) == WHOLE


async def test_a_replica_that_stops_in_mid_answer_hands_it_over_behind_one_address(stage: Stage, store: Store) -> None:
    env = {"RELAY_GRACEFUL_TIMEOUT": "0"}
    here, there = (stage.relay("--store", store.url, "--blind", name=name, env=env) for name in ("here", "there"))
    until(lambda: health(here)["replicas"] == health(there)["replicas"] == 1, "the replicas to meet")
    with balanced(there, here) as front:
        dialling(stage, front, delay=0.02)
        everywhere(here, there)
        async with Client([front.url]) as client:
            assert await told(client, after=20, then=lambda: there.kill(signal.SIGTERM)) == WHOLE
    assert there.process.wait(40) == 0


async def test_the_store_sees_no_word_and_keeps_nothing(stage: Stage, store: Store) -> None:
    with socket.create_connection(("127.0.0.1", store.port), 10) as tap:
        tap.sendall(b"PSUBSCRIBE *\r\n")
        here, there = replicas(stage, store)
        stage.node(there)
        everywhere(here, there)
        async with Client([here.url]) as client:
            assert await told(client) == WHOLE
        until(lambda: metric(here, "tokenplace_relay_remote_streams") == 0, "the stream to be over")
        with socket.create_connection(("127.0.0.1", store.port), 10) as asking:
            asking.sendall(b"PUBLISH x the-last-word\r\nDBSIZE\r\n")
            answers = b""
            while answers.count(b"\r\n") < 2:
                answers += asking.recv(4096)
        heard = b""
        while b"the-last-word" not in heard:
            heard += tap.recv(1 << 20)
    assert answers.endswith(b":0\r\n"), "no key"
    assert len(heard) > 5_000
    assert b"word1" not in heard
    assert b"127.0.0.1" not in heard


def test_what_is_no_store_is_said_in_one_line(stage: Stage) -> None:
    program = stage.start("relay", ["relay", "--port", "0", "--store", "http://secret-word@host"])
    assert program.process.wait(30) == 1
    program.finish()
    assert "valkey://" in program.text
    assert "secret-word" not in program.text
    assert "Traceback" not in program.text


def test_a_replica_that_stops_sends_its_nodes_and_clients_to_the_others(stage: Stage, store: Store) -> None:
    here, there = replicas(stage, store)
    with balanced(there, here) as front:
        dialling(stage, front)
        everywhere(here, there)
        there.kill(signal.SIGTERM)
        until(lambda: [node["here"] for node in nodes_at(here)] == [True], "the node to come over")
        assert there.process.wait(40) == 0

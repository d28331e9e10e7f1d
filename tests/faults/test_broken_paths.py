"""What breaks on the way: relays, nodes and clients killed in every moment. Nothing is lost, repeated or invented."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
import urllib.request

import httpx2
import pytest

from stage import Program, Stage, all_free, free_port, metric, nodes_at, until
from tokenplace.client.client import Client
from tokenplace.errors import JobFailed

WORDS = " ".join(f"word{number}" for number in range(120))
ASK = [{"role": "user", "content": WORDS}]
WHOLE = f"echo: {WORDS}"


async def told(client: Client, *, after: int = 0, then: object = None) -> str:
    """The text of an answer; `then` is called once `after` pieces were seen."""
    text, seen = "", 0
    async for chunk in client.stream(ASK, model="echo"):
        for choice in chunk["choices"]:
            piece = choice["delta"].get("content") or ""
            text += piece
            seen += bool(piece)
            if callable(then) and seen == after:
                then()
                then = None
    return text


async def test_a_relay_killed_in_mid_answer_is_replaced_by_another(stage: Stage) -> None:
    first, second = stage.relay(name="first"), stage.relay(name="second")
    stage.node(first, second, delay=0.01)
    async with Client([first.url, second.url]) as client:
        assert await told(client, after=20, then=first.kill) == WHOLE
        assert await told(client) == WHOLE, "and the next question goes to the second at once"
    assert metric(second, "tokenplace_relay_resumed_total") == 1


async def test_a_relay_that_stops_in_mid_answer_hands_over_to_another(stage: Stage) -> None:
    first = stage.relay(name="first", env={"RELAY_GRACEFUL_TIMEOUT": "0"})
    second = stage.relay(name="second")
    stage.node(first, second, delay=0.01)
    async with Client([first.url, second.url]) as client:
        assert await told(client, after=20, then=lambda: first.kill(signal.SIGTERM)) == WHOLE
    assert first.process.wait(10) == 0


async def test_a_pinned_node_is_found_among_many(stage: Stage) -> None:
    relay = stage.relay()
    for number in range(3):
        stage.node(relay, name=f"stranger-{number}")
    stage.node(relay, name="friend")
    friend = next(node["node"] for node in nodes_at(relay) if node["node"][:4] in stage.programs[-1].text)
    async with Client([relay.url], pins=[friend]) as client:
        for _ in range(4):
            async with client.ask("/v1/chat/completions", {"model": "echo", "messages": ASK}) as answer:
                assert answer.node == friend
                assert answer.standing == "pinned"


async def test_a_relay_that_comes_back_goes_on_with_the_stream(stage: Stage) -> None:
    port = free_port()
    relay = stage.relay(port=port)
    stage.node(relay, delay=0.01)

    def restart() -> None:
        relay.kill()
        relay.process.wait()
        stage.relay(port=port, name="again")

    async with Client([relay.url]) as client:
        assert await told(client, after=20, then=restart) == WHOLE


async def test_a_node_killed_before_its_first_piece_is_replaced_unnoticed(stage: Stage) -> None:
    relay = stage.relay()
    slow = stage.node(relay, delay=3.0, name="slow")
    async with Client([relay.url]) as client:
        asking = asyncio.create_task(client.chat(ASK, model="echo"))
        while all_free(relay):
            await asyncio.sleep(0.02)
        stage.node(relay, name="quick")
        slow.kill()
        answer = await asyncio.wait_for(asking, 20)
    assert answer["choices"][0]["message"]["content"] == WHOLE


async def test_a_node_killed_after_its_first_piece_is_an_error_not_an_ending(stage: Stage) -> None:
    relay = stage.relay()
    node = stage.node(relay, delay=0.02)
    async with Client([relay.url]) as client:
        with pytest.raises(JobFailed) as caught:
            await told(client, after=5, then=node.kill)
    assert caught.value.code == "node_lost"


def test_through_the_gateway_a_lost_node_is_an_error_event_without_done(stage: Stage) -> None:
    relay = stage.relay()
    node = stage.node(relay, delay=0.02)
    body = json.dumps({"model": "echo", "messages": ASK, "stream": True}).encode()
    request = posted(f"{relay.url}/v2/chat/completions", body)
    with urllib.request.urlopen(request, timeout=30) as response:
        begin = response.read(600)
        node.kill()
        text = (begin + response.read()).decode()
    assert "[DONE]" not in text
    assert '"code":"node_lost"' in text


def test_leaving_cancels_the_job(stage: Stage) -> None:
    relay = stage.relay()
    stage.node(relay, delay=0.2)
    own = stage.gateway(relay)
    body = json.dumps({"model": "echo", "messages": ASK, "stream": True}).encode()
    for url in (relay.url, own.url):
        request = posted(f"{url}/v2/chat/completions", body)
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read(100)
            assert not all_free(relay)
        until(lambda: all_free(relay), f"the slot to be free after leaving {url}", patience=12.0)


def test_usage_is_counted_for_whole_and_for_broken_answers(stage: Stage) -> None:
    """In the gateway's metrics and in the node's log: counts, and not a word."""
    relay = stage.relay()
    node = stage.node(relay, delay=0.02)
    url = f"{relay.url}/v2/chat/completions"
    whole = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "one two three"}]}).encode()
    urllib.request.urlopen(posted(url, whole), timeout=30).read()
    broken = json.dumps({"model": "echo", "messages": ASK, "stream": True}).encode()
    with urllib.request.urlopen(posted(url, broken), timeout=30) as response:
        response.read(3000)
    until(lambda: '"outcome": "cancelled"' in node.text, "the node to tell of the broken answer")
    assert metric(relay, 'tokenplace_gateway_tokens_total{kind="completion"}') == 4
    assert metric(relay, 'tokenplace_gateway_answers_total{outcome="done"}') == 1
    until(lambda: metric(relay, 'tokenplace_gateway_answers_total{outcome="left"}') == 1, "the gateway to count it")
    ended = [json.loads(line) for line in node.text.splitlines() if "job.ended" in line]
    assert [line["outcome"] for line in ended] == ["done", "cancelled"]
    assert ended[0]["completion_tokens"] == 4
    assert ended[1]["completion_tokens"] > 0
    assert "three" not in node.text
    assert "word5" not in node.text


def test_a_client_that_vanishes_cancels_a_json_answer_too(stage: Stage) -> None:
    relay = stage.relay()
    stage.node(relay, delay=0.2)
    host, port = relay.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "echo", "messages": ASK}).encode()
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(raw_post("/v1/chat/completions", body))
        until(lambda: not all_free(relay), "the job to begin")
    until(lambda: all_free(relay), "the slot to be free", patience=12.0)


async def test_interrupting_the_terminal_chat_stops_the_node(stage: Stage) -> None:
    relay = stage.relay()
    stage.node(relay, delay=0.2)
    chat = stage.start("chat", ["chat", "--relay", relay.url, "--message", WORDS])
    until(lambda: "word1" in chat.text, "the answer to begin")
    chat.kill(signal.SIGINT)
    until(lambda: all_free(relay), "the slot to be free", patience=12.0)
    assert chat.process.wait(10) == 130


def raw_post(path: str, body: bytes) -> bytes:
    """The same, as bytes for a bare socket."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def posted(url: str, body: bytes) -> urllib.request.Request:
    """A POST of JSON."""
    return urllib.request.Request(url, data=body, headers={"content-type": "application/json"})


def read_slowly(stage: Stage, seconds: float) -> tuple[Program, Program, int, int]:
    """A client that asks for much and reads nothing. Gives relay, node and how much each grew."""
    relay = stage.relay()
    node = stage.node(relay)
    warm = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "x " * 20_000}], "stream": True})
    for _ in range(2):
        urllib.request.urlopen(posted(f"{relay.url}/v2/chat/completions", warm.encode()), timeout=60).read()
    before = relay.rss(), node.rss()
    host, port = relay.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "x " * 100_000}], "stream": True})
    with socket.create_connection((host, int(port))) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(raw_post("/v2/chat/completions", body.encode()))
        until(lambda: not all_free(relay), "the job to begin")
        time.sleep(seconds)
        grown = relay.rss() - before[0], node.rss() - before[1]
        assert not all_free(relay), "the answer must still wait for its reader"
    until(lambda: all_free(relay), "the job to end when its reader leaves")
    return relay, node, *grown


def test_a_client_that_does_not_read_fills_nobodys_memory(stage: Stage) -> None:
    _, _, relay_grew, node_grew = read_slowly(stage, 4.0)
    assert relay_grew < 12 << 20
    assert node_grew < 24 << 20


@pytest.mark.heavy
def test_a_client_that_does_not_read_for_a_minute_fills_nobodys_memory(stage: Stage) -> None:
    _, _, relay_grew, node_grew = read_slowly(stage, 60.0)
    assert relay_grew < 12 << 20
    assert node_grew < 24 << 20


async def test_a_draining_relay_lets_streams_end_and_takes_no_new_ones(stage: Stage) -> None:
    relay = stage.relay()
    node = stage.node(relay, delay=0.02)
    async with Client([relay.url]) as client:
        asking = asyncio.create_task(told(client, after=5, then=lambda: relay.kill(signal.SIGTERM)))
        async with httpx2.AsyncClient(base_url=relay.url) as http:
            while (await http.get("/healthz")).status_code == 200:
                await asyncio.sleep(0.02)
            health = await http.get("/healthz")
            assert health.json()["status"] == "draining"
            assert health.headers["retry-after"]
            refused = await http.post(
                "/v2/chat/completions", json={"model": "echo", "messages": [{"role": "user", "content": "x"}]}
            )
            assert refused.status_code == 503
        assert await asking == WHOLE
    assert relay.process.wait(10) == 0
    assert node.end() == 0, "and a node without its relay ends when it is told to"


async def test_a_node_told_to_stop_finishes_its_answer_first(stage: Stage) -> None:
    relay = stage.relay()
    node = stage.node(relay, delay=0.02)
    async with Client([relay.url]) as client:
        assert await told(client, after=5, then=lambda: node.kill(signal.SIGTERM)) == WHOLE
    assert node.process.wait(10) == 0


@pytest.mark.heavy  # a real quarter of a minute; the broker's and the link's own tests move a clock instead
async def test_a_suspended_node_is_noticed_and_welcome_again(stage: Stage) -> None:
    relay = stage.relay()
    node = stage.node(relay)
    node.kill(signal.SIGSTOP)
    try:
        until(lambda: not nodes_at(relay), "the silence to be noticed", patience=45.0)
    finally:
        node.kill(signal.SIGCONT)
    until(lambda: nodes_at(relay), "the node to be back", patience=45.0)
    async with Client([relay.url]) as client:
        assert await told(client) == WHOLE


async def test_a_connection_cut_between_client_and_relay_loses_no_token(stage: Stage) -> None:
    """A proxy that drops the connection again and again; the client goes on each time."""
    relay = stage.relay()
    stage.node(relay, delay=0.01)
    host, port = relay.url.removeprefix("http://").split(":")
    cuts = 0

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cuts
        there, back = await asyncio.open_connection(host, int(port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, limit: int) -> None:
            passed = 0
            while data := await source.read(2048):
                sink.write(data)
                passed += len(data)
                if passed > limit:
                    break
            sink.close()

        upward = asyncio.ensure_future(pump(reader, back, 1 << 30))
        try:
            await pump(there, writer, 9000)
            cuts += 1
        finally:
            upward.cancel()
            back.close()
            writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with server, Client([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"]) as client:
        assert await told(client) == WHOLE
    assert cuts > 1

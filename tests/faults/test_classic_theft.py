"""What strangers try at a real relay's classic routes: theft, takeover, replay, overwriting, a flood, a full house.

Strangers come from other addresses: on Linux all of 127/8 is this machine.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections import Counter
from typing import Any

import pytest

from stage import Program, Stage, get_json, metric, until
from tokenplace.relay.classic.bounds import MAX_HELD, MAX_POLLING_PER_ADDRESS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs more than one loopback address")

HOME, NODE, THIEF = "127.0.0.1", "127.0.0.7", "127.0.0.66"
ENVELOPE = {"chat_history": "d29yZHM=", "cipherkey": "a2V5", "iv": "aXY="}


class Caller:
    """One program at an address."""

    def __init__(self, relay: Program, address: str, forwarded: str | None = None) -> None:
        host, _, port = relay.url.removeprefix("http://").partition(":")
        self._headers = {"Content-Type": "application/json", **({"X-Forwarded-For": forwarded} if forwarded else {})}
        self._connection = http.client.HTTPConnection(host, int(port), timeout=60, source_address=(address, 0))

    def post(self, path: str, **content: Any) -> tuple[int, dict[str, Any]]:
        body = json.dumps(content).encode()
        self._connection.request("POST", path, body, self._headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def ask(self, server: str, client: str, **more: Any) -> tuple[int, dict[str, Any]]:
        return self.post("/faucet", server_public_key=server, client_public_key=client, **{**ENVELOPE, **more})

    def close(self) -> None:
        self._connection.close()


def answered(words: str) -> dict[str, str]:
    return {**ENVELOPE, "chat_history": words}


@pytest.fixture
def relay(stage: Stage) -> Program:
    return stage.relay("--blind")


def test_strangers_steal_take_over_replay_and_overwrite_nothing(relay: Program) -> None:
    person, node, thief = (Caller(relay, address) for address in (HOME, NODE, THIEF))
    try:
        token = node.post("/sink", server_public_key="K")[1]["sink_token"]
        asked = person.ask("K", "C")[1]

        status, told = thief.post("/sink", server_public_key="K")
        assert (status, told["reason"]) == (403, "key_held"), "takeover"
        status, told = thief.post("/sink", server_public_key="K", sink_token="sixteen guesses!")
        assert status == 403
        assert "chat_history" not in told, "the queue is not drained"

        assert node.post("/sink", server_public_key="K")[1]["chat_history"] == ENVELOPE["chat_history"]
        for named in ({}, {"request_id": asked["request_id"]}):
            status, told = thief.post("/source", client_public_key="C", **answered("forged"), **named)
            assert (status, told["reason"]) == (403, "not_your_job")
        assert node.post("/source", client_public_key="C", **answered("true"))[0] == 200
        status, told = node.post("/source", client_public_key="C", **answered("again"))
        assert (status, told["reason"]) == (403, "not_your_job"), "replay and overwriting, even by the node itself"

        assert thief.post("/retrieve", client_public_key="C")[1]["error"].startswith("No response available"), "theft"
        stolen = {"request_id": asked["request_id"], "retrieve_token": "guess"}
        assert thief.post("/retrieve", client_public_key="C", **stolen)[1]["reason"] == "question_unknown"
        assert person.post("/retrieve", client_public_key="C")[1]["chat_history"] == "true"

        assert thief.post("/sink", server_public_key="K", sink_token=token)[0] == 200, "the token is what counts"
        assert node.post("/sink", server_public_key="K")[0] == 403, "and from then on it must be shown"
    finally:
        for caller in (person, node, thief):
            caller.close()


def test_strangers_do_not_get_into_a_stream(relay: Program) -> None:
    person, node, thief = (Caller(relay, address) for address in (HOME, NODE, THIEF))
    try:
        node.post("/sink", server_public_key="K")
        asked = person.ask("K", "C", stream=True)[1]
        session = node.post("/sink", server_public_key="K")[1]["stream_session_id"]
        assert thief.post("/stream/source", session_id=session, chunk="forged")[0] == 403
        assert node.post("/stream/source", session_id=session, chunk="one")[0] == 200
        assert "error" in thief.post("/stream/retrieve", client_public_key="C")[1]
        named = {"request_id": asked["request_id"], "retrieve_token": asked["retrieve_token"]}
        assert person.post("/stream/retrieve", client_public_key="C", **named)[1]["chunks"] == ["one"]
        assert node.post("/stream/source", session_id=session, chunk="two", final=True)[0] == 200
        told = person.post("/stream/retrieve", client_public_key="C", **named)[1]
        assert (told["chunks"], told["final"]) == (["two"], True)
        assert node.post("/stream/source", session_id=session, chunk="late")[0] == 404
    finally:
        for caller in (person, node, thief):
            caller.close()


def test_a_flood_of_fake_nodes_does_not_capture_the_clients(relay: Program) -> None:
    node, thief = Caller(relay, NODE), Caller(relay, THIEF)
    try:
        node.post("/sink", server_public_key="honest")
        statuses = Counter(thief.post("/sink", server_public_key=f"fake {number}")[0] for number in range(50))
        assert statuses == {200: MAX_POLLING_PER_ADDRESS, 429: 50 - MAX_POLLING_PER_ADDRESS}
        given = Counter(get_json(f"{relay.url}/next_server")["server_public_key"] for _ in range(200))
        assert given["honest"] > 60, "an address has one share, however many nodes it shows"
    finally:
        node.close()
        thief.close()


def test_behind_a_declared_proxy_people_are_told_apart_and_nobody_can_pretend(stage: Stage) -> None:
    relay = stage.relay("--blind", env={"TOKEN_PLACE_TRUSTED_PROXIES": HOME})
    person, thief, node = (Caller(relay, HOME, address) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"))
    pretender = Caller(relay, THIEF, "192.0.2.1")
    try:
        node.post("/sink", server_public_key="K")
        person.ask("K", "C")
        node.post("/sink", server_public_key="K")
        node.post("/source", client_public_key="C", **answered("true"))
        for stranger in (thief, pretender):
            assert stranger.post("/sink", server_public_key="K")[0] == 403
            assert "error" in stranger.post("/retrieve", client_public_key="C")[1]
        assert person.post("/retrieve", client_public_key="C")[1]["chat_history"] == "true"
    finally:
        for caller in (person, thief, node, pretender):
            caller.close()


@pytest.mark.heavy
def test_a_thousand_unread_answers_of_64_kib_stay_within_the_bound(relay: Program) -> None:
    """The original grew by 66 MB; here one address gets no more than its share, and others still get theirs."""
    person, node, other = (Caller(relay, address) for address in (HOME, NODE, THIEF))
    words = "x" * 65536
    try:
        node.post("/sink", server_public_key="K", max_batch_size=64)
        before = relay.rss()
        kept = Counter[int]()
        for number in range(1000):
            status, _ = person.ask("K", f"C{number}")
            if status == 200:
                client = node.post("/sink", server_public_key="K", max_batch_size=64)[1]["client_public_key"]
                status, _ = node.post("/source", client_public_key=client, **answered(words))
            kept[status] += 1
        assert set(kept) == {200, 429}
        assert 300 < kept[200] < 512
        assert metric(relay, "tokenplace_relay_classic_held_bytes") <= MAX_HELD
        grown = relay.rss() - before
        print(f"1,000 answers of 64 KiB: {kept[200]} kept, {kept[429]} refused, {grown / 2**20:.1f} MiB more")
        assert grown < MAX_HELD + 16 * 2**20
        assert other.ask("K", "somebody else")[0] == 200
        assert until(lambda: get_json(f"{relay.url}/livez"), "the relay to be alive")
    finally:
        for caller in (person, node, other):
            caller.close()

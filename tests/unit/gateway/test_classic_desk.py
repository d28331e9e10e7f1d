from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from tokenplace.client.classic import ClassicNode
from tokenplace.client.client import Client
from tokenplace.errors import ApiError, EngineCrashed
from tokenplace.gateway.app import create_gateway
from tokenplace.gateway.classic import ClassicDesk
from tokenplace.openai.classic import KeyExpired
from tokenplace.sealing.rsa import ClassicKey
from tokenplace.wire.ids import ModelId, NodeId
from unit.gateway.doubles import ToldClient

FILE: dict[str, Any] = json.loads((Path(__file__).parents[3] / "spec" / "vectors" / "classic.json").read_text("utf-8"))
KEYS = [ClassicKey.from_pem(FILE["keys"][name]["private_key_pem"]).public for name in ("A", "B", "JS")]
IDS = [key.key_id.hex() for key in KEYS]
ONE, TWO = NodeId("a" * 32), NodeId("b" * 32)
SEALED = {"ciphertext": "AA==", "cipherkey": "AA==", "iv": "AA=="}
WORDS = {"model": "tiny", "encrypted": True, "client_public_key": "abc", "messages": SEALED}


def node(name: NodeId, key: int, *previous: int, model: str = "tiny") -> ClassicNode:
    return ClassicNode(name, KEYS[key], tuple(IDS[each] for each in previous), frozenset({ModelId(model)}), False)


def told(*nodes: ClassicNode, **options: Any) -> ToldClient:
    client = ToldClient(**options)
    client.classic = list(nodes)
    return client


def desk(client: ToldClient, **options: Any) -> ClassicDesk:
    return ClassicDesk(cast("Client", client), **options)


def gateway(client: ToldClient, **options: Any) -> TestClient:
    return TestClient(create_gateway(cast("Client", client), hosted=False, service="here", **options))


# ── Which node ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_that_names_a_key_goes_to_its_node() -> None:
    at = desk(told(node(ONE, 0), node(TWO, 1)))
    assert await at.owner("me", {"key_id": IDS[1]}) == TWO
    assert await at.owner("me", {"key_id": IDS[0]}) == ONE


async def test_a_key_that_was_replaced_still_finds_its_node() -> None:
    assert await desk(told(node(TWO, 1), node(ONE, 2, 0))).owner("me", {"key_id": IDS[0]}) == ONE


async def test_a_node_that_claims_to_have_had_anothers_key_does_not_get_its_requests() -> None:
    at = desk(told(node(TWO, 1, 0), node(ONE, 0)))
    assert await at.owner("me", {"key_id": IDS[0]}) == ONE


async def test_a_program_that_names_no_key_means_the_one_it_was_given() -> None:
    client = told(node(ONE, 0))
    at = desk(client)
    await at.public_key("me", None)
    client.classic = [node(TWO, 1), node(ONE, 0)]
    assert await at.owner("me", {}) == ONE
    with pytest.raises(ApiError) as caught:
        await at.owner("somebody else", {})
    assert (caught.value.param, caught.value.status) == ("key_id", 400)


async def test_where_only_one_node_has_a_key_it_is_meant() -> None:
    assert await desk(told(node(TWO, 1))).owner("me", {}) == TWO


async def test_a_program_keeps_its_key_while_that_is_good() -> None:
    client = told(node(TWO, 1))
    at = desk(client)
    first = await at.public_key("me", None)
    client.classic = [node(ONE, 0), node(TWO, 1)]
    assert await at.public_key("me", None) == first
    assert (await at.public_key("me", "tiny"))["node"] == TWO
    client.classic[0] = node(ONE, 0, model="large")
    assert (await at.public_key("me", "large"))["node"] == ONE


async def test_a_key_that_nobody_has_any_more_brings_the_fresh_one() -> None:
    client = told(node(ONE, 0))
    at = desk(client)
    await at.public_key("me", None)
    client.classic = [node(ONE, 1)]
    for fields in ({}, {"key_id": IDS[2]}):
        with pytest.raises(KeyExpired) as caught:
            await at.owner("me", fields)
        assert (caught.value.key_id, caught.value.public_key) == (IDS[1], KEYS[1].wire)
    assert await at.owner("me", {}) == ONE


async def test_the_memory_of_programs_is_bounded() -> None:
    client = told(node(ONE, 0))
    at = desk(client, limit=2)
    for program in ("one", "two", "three"):
        await at.public_key(program, None)
    client.classic = [node(TWO, 1), node(ONE, 0)]
    assert await at.owner("three", {}) == ONE
    with pytest.raises(ApiError, match="key_id"):
        await at.owner("one", {})


@pytest.mark.parametrize("key_id", [7, "", "x", "A" * 16, ["a"], "a" * 1_000_000])
async def test_what_is_no_keys_id_is_refused(key_id: Any) -> None:
    with pytest.raises(ApiError) as caught:
        await desk(told(node(ONE, 0))).owner("me", {"key_id": key_id})
    assert caught.value.param == "key_id"


# ── Over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1", "/v2", "/api/v2"])
def test_the_key_is_shown_with_its_id_and_fingerprint(prefix: str) -> None:
    answer = gateway(told(node(ONE, 0))).get(f"{prefix}/public-key")
    shown = answer.json()
    assert (shown["public_key"], shown["key_id"], shown["node"]) == (KEYS[0].wire, IDS[0], ONE)
    assert shown["fingerprint"].startswith(IDS[0])
    assert len(shown["fingerprint"]) == 64


def test_without_a_node_that_opens_there_is_no_key() -> None:
    answer = gateway(told()).get("/v1/public-key")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_classic_node")
    assert answer.headers["retry-after"] == "10"


def test_an_encrypted_request_is_passed_to_its_node_as_it_came() -> None:
    client = told(node(TWO, 1), node(ONE, 0))
    answer = gateway(client).post("/v2/chat/completions", json={**WORDS, "key_id": IDS[0]})
    assert answer.headers["x-token-place-privacy"] == "classic"
    assert client.asked_of == [ONE]
    assert json.loads(client.asked[0][1]) == {**WORDS, "key_id": IDS[0]}


def test_a_completion_goes_to_a_node_with_the_model() -> None:
    client = told(node(ONE, 0, model="other"), node(TWO, 1))
    asked = {"model": "tiny", "prompt": "x", "encrypted": True, "client_public_key": "abc"}
    answer = gateway(client).post("/v1/completions", json=asked)
    assert answer.headers["x-token-place-privacy"] == "end-to-end"
    assert client.asked_of == [TWO]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"encrypted": "yes"}, "encrypted"),
        ({"encrypted": 1}, "encrypted"),
        ({"client_public_key": "abc"}, "client_public_key"),
        ({"key_id": "0" * 16}, "key_id"),
    ],
)
def test_half_an_encrypted_request_is_refused(fields: dict[str, Any], param: str) -> None:
    client = told(node(ONE, 0))
    answer = gateway(client).post("/v1/chat/completions", json={"model": "tiny", "messages": [], **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert client.asked == []


def test_the_gateways_own_blocklist_reads_what_is_plain_and_not_what_is_sealed() -> None:
    client = told(node(ONE, 0))
    http = gateway(client, phrases=["secret"])
    odd = {**SEALED, "ciphertext": "secret"}
    assert http.post("/v1/chat/completions", json={**WORDS, "messages": odd}).status_code == 200
    asked = {"model": "tiny", "prompt": "a secret", "encrypted": True, "client_public_key": "abc"}
    assert http.post("/v1/completions", json=asked).json()["error"]["code"] == "content_blocked"


def test_an_encrypted_stream_that_breaks_says_so_in_its_own_shape_and_has_no_end() -> None:
    kind = "text/event-stream; charset=utf-8"
    client = ToldClient(b'data: {"event":"delta"}\n\n', EngineCrashed(), content_type=kind)
    client.classic = [node(ONE, 0)]
    answer = gateway(client).post("/v2/chat/completions", json={**WORDS, "stream": True})
    *_, last, end = answer.text.split("\n\n")
    assert end == ""
    assert json.loads(last.removeprefix("data: "))["event"] == "error"
    assert json.loads(last.removeprefix("data: "))["reason"] == "engine_crashed"
    assert "[DONE]" not in answer.text


def test_no_operator_means_no_rotation() -> None:
    http = gateway(told(node(ONE, 0)))
    answer = http.post("/v1/public-key/rotate", headers={"X-Token-Place-Operator": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "operator_auth_not_configured")


def test_where_no_node_obeys_that_is_said() -> None:
    client = told(node(ONE, 0), status=403)
    http = gateway(client, operator="sesame")
    answer = http.post("/v1/public-key/rotate", headers={"X-Token-Place-Operator": "sesame"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "operator_not_obeyed")
    assert client.asked[0][0] == "/v1/public-key/rotate"
    assert b"sesame" not in client.asked[0][1]

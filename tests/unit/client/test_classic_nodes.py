from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tokenplace.client.answer import Answer
from tokenplace.client.client import Client
from tokenplace.client.door import Directory
from tokenplace.client.relays import Relays
from tokenplace.client.trust import Trust
from tokenplace.errors import JobFailed, NoNode
from tokenplace.openai.calls import Call
from tokenplace.sealing.identity import Identity
from tokenplace.sealing.rsa import ClassicKey
from tokenplace.wire.card import CardBody, ModelCard
from tokenplace.wire.classic import CARD_FIELD, ClassicCard
from tokenplace.wire.ids import ModelId, NodeId
from tokenplace.wire.limits import MAX_CONTROL
from tokenplace.wire.messages import Hello, Listing
from unit.client.scripted import NOW_MS, RefusedByNode, ScriptedDoor, a_node

FILE: dict[str, Any] = json.loads((Path(__file__).parents[3] / "spec" / "vectors" / "classic.json").read_text("utf-8"))
A, B = (ClassicKey.from_pem(FILE["keys"][name]["private_key_pem"]).public for name in ("A", "B"))
SHOWN = ClassicCard(A.wire, A.key_id.hex(), (B.key_id.hex(),))


def listing(extra: dict[str, Any], seed: int = 7) -> Listing:
    identity = Identity(bytes([seed]) * 32)
    body = CardBody(identity.public, 1, 1, (), (ModelCard(ModelId("m"), 2048),), extra)
    return Listing(identity.sign_card(body), slots=1, free=1, queued=0)


async def found(*listings: Listing, **options: Any) -> list[Any]:
    door = ScriptedDoor("relay", directory=Directory(listings, {ModelId("m"): len(listings)}))
    async with Client([door], **options) as client:
        return await client.classic_nodes()


async def test_a_card_that_shows_a_classic_key_is_found_and_others_are_passed_over() -> None:
    nodes = await found(listing({}, 1), listing({CARD_FIELD: SHOWN.fields()}, 2))
    (node,) = nodes
    assert (node.node, node.key, node.previous) == (Identity(b"\2" * 32).node, A, (B.key_id.hex(),))
    assert (node.models, node.pkcs1v15) == ({"m"}, False)
    assert node.fingerprint == hashlib.sha256(A.der).hexdigest()


async def test_the_id_of_a_key_is_reckoned_and_not_believed() -> None:
    lie = ClassicCard(A.wire, B.key_id.hex())
    (node,) = await found(listing({CARD_FIELD: lie.fields()}))
    assert node.key_id == A.key_id.hex()


@pytest.mark.parametrize(
    "field",
    [
        None,
        "text",
        {"key": A.wire},
        {"key": A.wire, "key_id": "xyz"},
        {"key": "no key", "key_id": "0" * 16},
        {"key": "A" * 10_000, "key_id": "0" * 16},
        {"key": ["a"], "key_id": "0" * 16},
    ],
)
async def test_a_card_that_shows_nonsense_has_no_key(field: object) -> None:
    assert await found(listing({CARD_FIELD: field})) == []


async def test_a_card_may_be_vague_about_former_keys() -> None:
    for previous in (None, "text", [1, "x", B.key_id.hex()]):
        field = {"key": A.wire, "key_id": A.key_id.hex(), "previous": previous}
        (node,) = await found(listing({CARD_FIELD: field}))
        assert set(node.previous) <= {B.key_id.hex()}


async def test_nodes_that_are_not_pinned_are_not_offered() -> None:
    mine, other = listing({CARD_FIELD: SHOWN.fields()}, 1), listing({CARD_FIELD: SHOWN.fields()}, 2)
    (node,) = await found(mine, other, pins=[mine.card.node])
    assert node.node == mine.card.node


def test_a_card_with_as_many_former_keys_as_there_may_be_fits_many_times() -> None:
    widest = ClassicCard("A" * 4096, "0" * 16, ("0" * 16,) * 16, pkcs1v15=True)
    identity = Identity(bytes(32))
    models = tuple(ModelCard(ModelId(f"model-{number}"), 4096, ("chat",), "sha256:" + "0" * 64) for number in range(32))
    card = identity.sign_card(CardBody(identity.public, 1, 1, (), models, {CARD_FIELD: widest.fields()}))
    hello = Hello(card, bytes(64), "relay.example", 64)
    assert 2 * len(json.dumps(hello.fields())) < MAX_CONTROL
    assert ClassicCard.of(card.body.extra) == widest


def one_node(door: ScriptedDoor, node: NodeId) -> Answer:
    call = Call("/v1/chat/completions", b"{}")
    return Answer(Relays([door]), Trust(), call, None, wall_ms=lambda: NOW_MS, only=node)


# ── One node ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_for_one_node_goes_to_that_node_whatever_else_is_there() -> None:
    nodes = [a_node(number) for number in range(1, 6)]
    door = ScriptedDoor("relay", nodes=nodes)
    answer = one_node(door, nodes[3].id)
    await answer.begin()
    assert await answer.read() == b"one two three"
    await answer.close()
    with pytest.raises(NoNode):
        await one_node(door, NodeId("z" * 32)).begin()
    assert door.sent_to == [nodes[3].id]


async def test_words_that_a_node_may_have_opened_are_not_sent_to_it_again() -> None:
    node = a_node(1)
    for code, times in (("node_lost", 1), ("no_progress", 1), ("busy", 3)):
        door = ScriptedDoor("relay", [RefusedByNode(code)], nodes=[node])
        with pytest.raises(JobFailed):
            await one_node(door, node.id).begin()
        assert len(door.sent_to) == times


async def test_what_a_relay_said_of_a_node_just_now_is_not_asked_again_unless_it_has_to_be_fresh() -> None:
    node = a_node(1)
    door = ScriptedDoor("relay", nodes=[node])
    async with Client([door]) as client:
        for fresh in (False, False, True):
            await client.classic_nodes(node=node.id, fresh=fresh)
    assert len(door.asked) == 2

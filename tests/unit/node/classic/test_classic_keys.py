from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tokenplace.errors import ApiError
from tokenplace.node.api import NodeApi
from tokenplace.node.build import ECHO
from tokenplace.node.classic import ClassicDoor, ClassicKeys
from tokenplace.node.classic.door import ROTATE
from tokenplace.node.engines.echo import EchoEngine
from tokenplace.openai.classic import KeyExpired
from tokenplace.sealing.keys import HOUR_MS, LIFE_MS, OVERLAP_MS
from tokenplace.sealing.operator import Operator
from tokenplace.sealing.rsa import ClassicKey
from tokenplace.wire.classic import ClassicCard
from tokenplace.wire.ids import NodeId

FILE: dict[str, Any] = json.loads((Path(__file__).parents[4] / "spec" / "vectors" / "classic.json").read_text("utf-8"))
MADE = [ClassicKey.from_pem(FILE["keys"][name]["private_key_pem"]) for name in ("A", "B", "JS")]
NODE = NodeId("a" * 32)


class Clock:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


class Maker:
    """Gives the keys of the vectors, one after the other."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, pkcs1v15: bool) -> ClassicKey:
        self.made += 1
        return MADE[self.made - 1]


def id_of(number: int) -> str:
    return MADE[number].key_id.hex()


def card_of(keys: ClassicKeys) -> ClassicCard:
    card = keys.card()
    assert card is not None
    return card


async def test_there_is_no_key_in_the_card_before_one_was_made() -> None:
    keys = ClassicKeys(make=Maker())
    assert keys.card() is None
    with pytest.raises(ApiError) as caught:
        keys.for_request(None)
    assert (caught.value.status, caught.value.code) == (503, "no_classic_node")
    await keys.look()
    assert card_of(keys).key_id == id_of(0)


async def test_a_day_later_a_fresh_key_is_shown_and_the_former_still_opens() -> None:
    clock, heard = Clock(), []
    keys = ClassicKeys(make=Maker(), wall_ms=clock)
    keys.changed = lambda: heard.append(keys.card())
    await keys.look()
    clock.ms += LIFE_MS - 1
    await keys.look()
    assert len(heard) == 1
    clock.ms += 1
    await keys.look()
    assert (card_of(keys).key_id, card_of(keys).previous) == (id_of(1), (id_of(0),))
    assert [key.key_id.hex() for key in keys.for_request(id_of(0))] == [id_of(0)]
    assert len(keys.for_request(None)) == 2
    clock.ms += OVERLAP_MS - HOUR_MS
    await keys.look()
    clock.ms += HOUR_MS
    await keys.look()
    assert id_of(0) not in card_of(keys).previous


async def test_who_seals_to_a_key_that_is_gone_is_told_the_fresh_one() -> None:
    keys = ClassicKeys(make=Maker())
    await keys.look()
    await keys.rotate(overlap_ms=0)
    with pytest.raises(KeyExpired) as caught:
        keys.for_request(id_of(0))
    error = caught.value.as_json()["error"]
    assert (error["code"], error["key_id"], error["public_key"]) == ("key_expired", id_of(1), MADE[1].public.wire)


async def test_two_rotations_at_once_make_two_keys() -> None:
    maker = Maker()
    keys = ClassicKeys(make=maker)
    await keys.look()
    await asyncio.gather(keys.rotate(), keys.rotate())
    assert (maker.made, card_of(keys).previous) == (3, (id_of(1), id_of(0)))


# ── Orders ───────────────────────────────────────────────────────────────────────────────────────────────────────


def a_door(token: str | None) -> tuple[ClassicDoor, list[str]]:
    engine = EchoEngine()
    keys = ClassicKeys(make=Maker(), operator=Operator(token) if token else None)
    door = ClassicDoor(NodeApi(engine, traits=ECHO), engine, keys)
    door.node = NODE
    heard: list[str] = []
    door.rotated = lambda: heard.append("rotated")
    return door, heard


async def order(door: ClassicDoor, body: object) -> tuple[int, dict[str, Any]]:
    async with door.answer(ROTATE, json.dumps(body).encode()) as answer:
        return answer.status, json.loads(b"".join([chunk async for chunk in answer.body()]))


def signed(token: str, node: NodeId = NODE) -> dict[str, object]:
    now_ms = time.time_ns() // 1_000_000
    return {"time_ms": now_ms, "order": Operator(token).order(node, now_ms)}


async def test_the_operators_order_brings_a_fresh_key_and_lets_the_exchange_rotate_too() -> None:
    door, heard = a_door("sesame")
    await door.keys.look()
    status, told = await order(door, signed("sesame"))
    assert (status, told["key_id"], heard) == (200, id_of(1), ["rotated"])
    assert card_of(door.keys).previous == (id_of(0),)


@pytest.mark.parametrize(
    ("token", "body", "code"),
    [
        (None, signed("sesame"), "operator_auth_not_configured"),
        ("sesame", signed("other"), "operator_token_invalid"),
        ("sesame", signed("sesame", NodeId("b" * 32)), "operator_token_invalid"),
        ("sesame", {"time_ms": "now", "order": "x"}, "operator_token_invalid"),
        ("sesame", {"time_ms": 1, "order": 7}, "operator_token_invalid"),
        ("sesame", [], "invalid_json"),
    ],
)
async def test_any_other_order_changes_nothing(token: str | None, body: object, code: str) -> None:
    door, heard = a_door(token)
    await door.keys.look()
    status, told = await order(door, body)
    assert (status, told["error"]["code"], heard) == (403, code, [])
    assert card_of(door.keys).key_id == id_of(0)

from __future__ import annotations

import pytest

from tokenplace.client.door import Directory
from tokenplace.client.relays import Relays
from tokenplace.errors import Draining, RelayUnreachable
from tokenplace.wire.ids import ModelId
from unit.client.scripted import ScriptedDoor, a_node

HERE = Directory([a_node(1).listing()], {ModelId("m"): 1})
EMPTY = Directory([], {})


def a_door(name: str, directory: Directory | Exception = HERE) -> ScriptedDoor:
    return ScriptedDoor(name, directory=directory)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_client_without_relays_says_what_to_do() -> None:
    with pytest.raises(RelayUnreachable, match="--relay"):
        Relays([])


async def test_the_first_relay_that_lists_a_node_is_the_last_that_is_asked() -> None:
    doors = [a_door("a", EMPTY), a_door("b"), a_door("c")]
    answers = await Relays(doors, Clock()).directories(None)
    assert [door.name for door, _ in answers] == ["a", "b"]
    assert doors[2].asked == []


async def test_a_relay_that_failed_is_tried_last_for_a_while() -> None:
    clock = Clock()
    bad, good = a_door("bad", RelayUnreachable("down")), a_door("good")
    relays = Relays([bad, good], clock)
    assert [door.name for door, _ in await relays.directories(None)] == ["good"]
    clock.now += 5
    await relays.directories(None)
    assert len(bad.asked) == 1
    clock.now += 6
    assert [door.name for door in relays.in_order()] == ["bad", "good"]
    bad.directory = HERE
    assert [door.name for door, _ in await relays.directories(None)] == ["bad"]


async def test_a_relay_that_works_again_is_first_again_at_once() -> None:
    clock = Clock()
    bad, good = a_door("bad"), a_door("good")
    relays = Relays([bad, good], clock)
    relays.failed(bad)
    assert relays.troubled(bad)
    relays.works(bad)
    assert [door.name for door in relays.in_order()] == ["bad", "good"]


async def test_when_no_relay_answers_the_first_problem_is_told() -> None:
    relays = Relays([a_door("a", RelayUnreachable("first")), a_door("b", Draining("second"))], Clock())
    with pytest.raises(RelayUnreachable, match="first"):
        await relays.directories(None)


async def test_relays_without_nodes_are_an_answer_too() -> None:
    answers = await Relays([a_door("a", EMPTY), a_door("b", RelayUnreachable("down"))], Clock()).directories(None)
    assert [directory for _, directory in answers] == [EMPTY]


async def test_a_directory_is_used_for_two_seconds_and_one_per_model() -> None:
    clock, door = Clock(), a_door("a")
    relays = Relays([door], clock)
    for _ in range(3):
        await relays.directories(None)
    await relays.directories(ModelId("m"))
    assert door.asked == [None, "m"]
    clock.now += 2
    await relays.directories(None)
    relays.forget(door)
    await relays.directories(None)
    assert door.asked == [None, "m", None, None]


async def test_an_empty_directory_is_not_kept() -> None:
    door = a_door("a", EMPTY)
    relays = Relays([door], Clock())
    await relays.directories(None)
    await relays.directories(None)
    assert len(door.asked) == 2


async def test_closing_closes_every_door() -> None:
    doors = [a_door("a"), a_door("b")]
    await Relays(doors, Clock()).aclose()
    assert [door.closed for door in doors] == [True, True]


@pytest.mark.parametrize("sticky", [True, False])
async def test_a_sticky_client_asks_for_the_node_that_answered_it(sticky: bool) -> None:
    door, model, node = a_door("a"), ModelId("m"), a_node(1).id
    relays = Relays([door], Clock(), sticky=sticky)
    await relays.directories(model)
    relays.answered(model, node)
    await relays.directories(model)
    await relays.directories(None)
    assert door.preferred == ([None, node, None] if sticky else [None, None])


async def test_a_node_that_failed_is_passed_over_without_asking_anew_while_another_is_known() -> None:
    nodes = [a_node(1), a_node(2)]
    door = a_door("a", Directory([node.listing() for node in nodes], {ModelId("m"): 2}))
    relays = Relays([door], Clock())
    await relays.directories(None)
    relays.pass_over(door, nodes[0].id)
    ((_, left),) = await relays.directories(None)
    assert [listing.card.node for listing in left.listings] == [nodes[1].id]
    assert len(door.asked) == 1
    relays.pass_over(door, nodes[1].id)
    ((_, anew),) = await relays.directories(None)
    assert len(anew.listings) == 2, "nobody else is known, so the relay is asked again"
    assert len(door.asked) == 2

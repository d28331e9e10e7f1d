from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tokenplace.client.door import Directory
from tokenplace.client.relays import Relays
from tokenplace.errors import Draining, RelayUnreachable
from tokenplace.wire.ids import ModelId, NodeId
from tokenplace.wire.messages import Listing
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


# -- who asks at the same time -----------------------------------------------------------------------------------------

NODES = [a_node(name) for name in (1, 2, 3)]


def listed(*loads: tuple[int, int, int]) -> Directory:
    """Nodes with so many slots, of them free, and requests that wait."""
    listings = [Listing(node.card(), *load) for node, load in zip(NODES, loads, strict=False)]
    return Directory(listings, {ModelId("m"): len(listings)})


async def chosen_one_by_one(relays: Relays, count: int) -> Sequence[int]:
    names = {node.id: name for name, node in enumerate(NODES, 1)}
    made = []
    for _ in range(count):
        ((_, directory),) = await relays.directories(None)
        node = directory.listings[0].card.node
        relays.chosen(node)
        made.append(names[node])
    return made


@pytest.mark.parametrize(
    ("loads", "made"),
    [
        ([(1, 1, 0), (1, 1, 0), (1, 1, 0)], "123"),
        ([(1, 1, 0), (1, 1, 0), (1, 1, 0)], "112233"),
        ([(2, 2, 0), (1, 1, 0)], "112"),
        ([(2, 2, 0), (1, 1, 0)], "111122"),
        ([(1, 1, 0), (1, 0, 2)], "111"),
        ([(1, 1, 0), (1, 0, 2)], "1111122"),
        ([(4, 0, 3), (1, 0, 1)], "1111"),
        ([(8, 0, 0), (1, 0, 0)], "111111112"),
    ],
    ids=str,
)
async def test_each_choice_counts_for_the_next(loads: list[tuple[int, int, int]], made: str) -> None:
    """Whom the relay names first, then free slots in its order, then the shorter wait, for which slots count."""
    door = a_door("a", listed(*loads))
    assert sorted(await chosen_one_by_one(Relays([door], Clock()), len(made))) == [int(name) for name in made]
    assert len(door.asked) == 1


async def test_a_fresh_directory_knows_what_was_chosen_before() -> None:
    clock, door = Clock(), a_door("a", listed((1, 1, 0), (1, 1, 0)))
    relays = Relays([door], clock)
    assert await chosen_one_by_one(relays, 1) == [1]
    clock.now += 2
    assert await chosen_one_by_one(relays, 1) == [1]


class SlowDoor(ScriptedDoor):
    """A relay that is far away."""

    async def nodes(
        self, model: ModelId | None, limit: int, node: NodeId | None = None, prefer: NodeId | None = None
    ) -> Directory:
        try:
            return await super().nodes(model, limit, node, prefer)
        finally:
            for _ in range(5):
                await asyncio.sleep(0)


async def test_those_who_ask_in_the_same_moment_look_once_and_see_each_others_choices() -> None:
    door = SlowDoor("a", directory=listed((1, 1, 0), (1, 1, 0), (1, 1, 0)))
    relays = Relays([door], Clock())
    made = await asyncio.gather(*(chosen_one_by_one(relays, 1) for _ in range(6)))
    assert sorted(name for each in made for name in each) == [1, 1, 2, 2, 3, 3]
    assert len(door.asked) == 1


@pytest.mark.parametrize("directory", [EMPTY, RelayUnreachable("down")], ids=["nobody", "no relay"])
async def test_those_who_ask_in_the_same_moment_hear_the_same(directory: Directory | Exception) -> None:
    door = SlowDoor("a", directory=directory)
    relays = Relays([door], Clock())
    heard = await asyncio.gather(*(relays.directories(None) for _ in range(6)), return_exceptions=True)
    assert len(door.asked) == 1
    if isinstance(directory, Exception):
        assert all(isinstance(each, RelayUnreachable) for each in heard)
    else:
        assert heard == [[(door, EMPTY)]] * 6


async def test_who_gives_up_looking_leaves_it_to_those_who_wait() -> None:
    door = SlowDoor("a", directory=HERE)
    relays = Relays([door], Clock())
    first = asyncio.ensure_future(relays.directories(None))
    second = asyncio.ensure_future(relays.directories(None))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == [(door, HERE)]
    assert len(door.asked) == 2


async def test_a_choice_of_a_node_that_is_not_listed_changes_nothing() -> None:
    relays = Relays([a_door("a", listed((1, 1, 0), (1, 0, 0)))], Clock())
    ((_, before),) = await relays.directories(None)
    relays.chosen(NODES[2].id)
    ((_, after),) = await relays.directories(None)
    assert after is before


async def test_a_relay_that_is_going_away_counts_only_where_no_other_does() -> None:
    leaving, staying = a_door("leaving", replace(HERE, draining=True)), a_door("staying")
    answers = await Relays([leaving, staying], Clock()).directories(None)
    assert [door.name for door, _ in answers] == ["staying", "leaving"]
    answers = await Relays([leaving, a_door("empty", EMPTY)], Clock()).directories(None)
    assert [door.name for door, _ in answers] == ["empty", "leaving"]

from __future__ import annotations

import random
from collections import Counter

from tokenplace.link.ends import RelayEnd
from tokenplace.relay.roster import Node, Roster
from tokenplace.wire.ids import ModelId
from tokenplace.wire.limits import MAX_LISTED_MODELS
from unit.relay.desk import a_card


class CountingDice(random.Random):
    """Remembers how much it was asked for."""

    def __init__(self) -> None:
        super().__init__(7)
        self.drawn = 0

    def sample(self, population, k, *, counts=None):  # type: ignore[no-untyped-def]
        self.drawn += k
        return super().sample(population, k, counts=counts)


def a_node(name: int, *, free: int = 1, slots: int = 1, models: tuple[str, ...] = ("m",)) -> Node:
    return Node(card=a_card(name, models=models), end=RelayEnd(), slots=slots, free=free, close=lambda _: None)


def a_roster(*nodes: Node) -> Roster:
    roster = Roster(random.Random(7))
    for node in nodes:
        roster.add(node)
    return roster


def test_a_crowd_of_models_pushes_nobody_out_and_is_not_all_told() -> None:
    roster = a_roster(a_node(1, models=("real",)))
    for name in range(2, 22):
        roster.add(a_node(name, models=tuple(f"{name}-{number}" for number in range(64))))
    told = roster.models()
    assert len(told) == MAX_LISTED_MODELS
    assert told[ModelId("real")] == 1
    assert roster.pick(ModelId("21-63"), 8), "what is not told is found by its name all the same"


def test_the_least_loaded_come_first() -> None:
    full, half, idle = a_node(1, free=0, slots=4), a_node(2, free=2, slots=4), a_node(3, free=4, slots=4)
    assert a_roster(full, half, idle).pick(None, 8) == [idle, half, full]


def test_a_node_without_slots_comes_after_one_with() -> None:
    starting, ready = a_node(1, free=0, slots=0), a_node(2)
    assert a_roster(starting, ready).pick(None, 8) == [ready, starting]


def test_equal_nodes_take_turns_at_the_head() -> None:
    roster = a_roster(*(a_node(name) for name in range(1, 5)))
    first = Counter(roster.pick(None, 8)[0].id for _ in range(400))
    assert len(first) == 4
    assert min(first.values()) > 50


def test_a_choice_costs_the_same_however_many_nodes_there_are() -> None:
    dice = CountingDice()
    roster = Roster(dice)
    for name in range(1, 200):
        roster.add(a_node(name))
    assert len(roster.pick(None, 3)) == 3
    assert dice.drawn == 6


def test_every_node_is_drawn_some_time() -> None:
    nodes = [a_node(name) for name in range(1, 41)]
    roster = a_roster(*nodes)
    assert {node.id for _ in range(300) for node in roster.pick(None, 2)} == {node.id for node in nodes}


def test_only_nodes_of_the_model_are_picked() -> None:
    roster = a_roster(a_node(1, models=("a",)), a_node(2, models=("a", "b")))
    assert len(roster.pick(ModelId("a"), 8)) == 2
    assert [node.card.node for node in roster.pick(ModelId("b"), 8)] == [a_card(2).node]
    assert roster.pick(ModelId("c"), 8) == []
    assert roster.models() == {"a": 2, "b": 1}


def test_a_model_named_twice_on_a_card_is_one_node() -> None:
    roster = a_roster(a_node(1, models=("a", "a")))
    assert roster.models() == {"a": 1}
    assert len(roster.pick(ModelId("a"), 8)) == 1


def test_a_node_that_drains_or_is_away_is_known_but_not_shown() -> None:
    draining, away = a_node(1), a_node(2)
    draining.draining, away.end = True, None
    roster = a_roster(draining, away)
    assert roster.pick(None, 8) == []
    assert len(roster) == 0
    assert roster.get(away.id) is away
    assert roster.models() == {}


def test_nothing_is_left_of_nodes_that_went() -> None:
    nodes = [a_node(name, models=(f"m{name}",)) for name in range(1, 20)]
    roster = a_roster(*nodes)
    random.Random(3).shuffle(nodes)
    for node in nodes:
        roster.remove(node)
        roster.remove(node)
        assert node.id not in {other.id for other in roster.pick(None, 64)}
    assert (len(roster), list(roster), roster.models()) == (0, [], {})


def test_a_pick_of_none_is_none() -> None:
    assert a_roster(a_node(1)).pick(None, 0) == []


def test_a_node_that_answers_faster_comes_first() -> None:
    slow, fast = a_node(1), a_node(2)
    for _ in range(5):
        slow.standing.answer_given(4_000, 8.0)
        fast.standing.answer_given(4_000, 0.1)
    assert a_roster(slow, fast).pick(None, 8) == [fast, slow]


def test_a_short_answer_tells_nothing_of_the_speed() -> None:
    node = a_node(1)
    before = node.cost
    node.standing.answer_given(200, 60.0)
    assert node.cost == before


def test_a_far_node_comes_after_a_near_one() -> None:
    far, near = a_node(1), a_node(2)
    far.rtt, near.rtt = 0.4, 0.01
    assert a_roster(far, near).pick(None, 8) == [near, far]


def test_a_free_slow_node_beats_a_long_queue_at_a_fast_one() -> None:
    slow, fast = a_node(1), a_node(2, free=0)
    fast.standing.seconds_per_job = 30.0
    for _ in range(5):
        slow.standing.answer_given(4_000, 1.0)
        fast.standing.answer_given(4_000, 0.1)
    assert a_roster(slow, fast).pick(None, 8) == [slow, fast]


def test_the_node_a_client_would_like_again_comes_first_while_it_is_free() -> None:
    liked, others = a_node(1, free=1, slots=8), [a_node(name, free=8, slots=8) for name in range(2, 9)]
    roster = a_roster(liked, *others)
    assert roster.pick(None, 2, prefer=liked.id)[0] is liked
    liked.free = 0
    assert roster.pick(None, 2, prefer=liked.id)[0] is not liked
    assert len(roster.pick(None, 2, prefer=a_card(99).node)) == 2


def test_clients_that_ask_together_are_not_all_sent_to_the_one_that_is_a_little_nearer() -> None:
    nodes = [a_node(name) for name in range(1, 5)]
    for number, node in enumerate(nodes):
        node.rtt = 0.001 * number
    roster = a_roster(*nodes)
    first = Counter(roster.pick(None, 8)[0].id for _ in range(400))
    assert len(first) == 4
    assert min(first.values()) > 50

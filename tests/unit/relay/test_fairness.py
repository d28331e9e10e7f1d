"""Fair shares: of a node's turns, of its slots, of the relay's memory."""

from __future__ import annotations

import pytest

from tokenplace.errors import QueueFull
from tokenplace.relay.fairness import LATELY
from tokenplace.relay.jobs import Step
from tokenplace.relay.tickets import Ticket
from unit.relay.desk import DONE, Desk, Puppet


@pytest.fixture
def desk() -> Desk:
    return Desk()


def asked(desk: Desk, node: Puppet, client: str, *, size: int = 60) -> Ticket:
    return desk.submit(node.id, client=client, size=size)


def flood(desk: Desk, node: Puppet, size: int = 60) -> None:
    for _ in range(20):
        asked(desk, node, "flood", size=size)


def run_one(desk: Desk, node: Puppet, free: int = 1) -> None:
    """The node answers the offer it was given last."""
    sid = node.offers()[-1].sid
    node.accept(sid)
    desk.now += 1
    node.finish(sid, 0, DONE, free)


def test_who_asks_for_little_waits_for_one_turn_behind_a_flood(desk: Desk) -> None:
    node = desk.node(slots=1)
    many = [asked(desk, node, "flood") for _ in range(30)]
    light = asked(desk, node, "light")
    assert desk.broker.position(light) <= 2
    run_one(desk, node)
    run_one(desk, node)
    assert light.job.step is Step.OFFERED
    assert sum(ticket.job.step is Step.QUEUED for ticket in many) == 28


def test_clients_that_ask_alike_take_turns(desk: Desk) -> None:
    node = desk.node(slots=1)
    tickets = {ticket.job.id: name for name in "abc" for ticket in [asked(desk, node, name) for _ in range(4)]}
    order = []
    for _ in range(12):
        sid = node.offers()[-1].sid
        order.append(tickets[node.node.active[sid].job.id])
        node.accept(sid)
        node.finish(sid, 0, DONE, 1)
    assert [sorted(order[start : start + 3]) for start in range(1, 10, 3)] == [["a", "b", "c"]] * 3


def test_large_requests_count_for_more_than_small_ones(desk: Desk) -> None:
    node = desk.node(slots=1)
    asked(desk, node, "first")
    large = [asked(desk, node, "large", size=64 * 1024) for _ in range(3)]
    small = [asked(desk, node, "small") for _ in range(10)]
    for _ in range(12):
        run_one(desk, node)
    assert sum(ticket.job.ended for ticket in small) >= 9
    assert sum(ticket.job.ended for ticket in large) <= 2


def test_a_flood_never_takes_the_last_place_of_a_queue() -> None:
    desk = Desk(max_queue=16)
    node = desk.node(slots=1)
    with pytest.raises(QueueFull, match="of them yours"):
        flood(desk, node)
    assert asked(desk, node, "light").job.step is Step.QUEUED


def test_a_flood_of_bytes_leaves_memory_for_others() -> None:
    desk = Desk(max_bytes=100_000)
    node = desk.node(slots=1)
    with pytest.raises(QueueFull):
        flood(desk, node, size=9_000)
    assert asked(desk, node, "light", size=9_000).job.step is Step.QUEUED


def test_one_client_alone_has_every_slot(desk: Desk) -> None:
    node = desk.node(slots=4)
    assert [asked(desk, node, "only").job.step for _ in range(4)] == [Step.OFFERED] * 4


def test_the_last_slot_is_kept_for_a_client_that_came_lately(desk: Desk) -> None:
    node = desk.node(slots=4)
    asked(desk, node, "light")
    run_one(desk, node, free=4)
    many = [asked(desk, node, "flood") for _ in range(6)]
    assert [ticket.job.step for ticket in many].count(Step.OFFERED) == 3
    assert asked(desk, node, "light").job.step is Step.OFFERED


def test_a_kept_slot_is_for_all_when_nobody_came_for_it(desk: Desk) -> None:
    node = desk.node(slots=2)
    asked(desk, node, "light")
    run_one(desk, node, free=2)
    tickets = [asked(desk, node, "flood") for _ in range(2)]
    assert [ticket.job.step for ticket in tickets] == [Step.OFFERED, Step.QUEUED]
    desk.wait(LATELY + 1, awake=(node,))
    assert [ticket.job.step for ticket in tickets] == [Step.OFFERED, Step.OFFERED]


def test_a_slot_is_not_kept_when_everybody_who_came_has_one(desk: Desk) -> None:
    node = desk.node(slots=3)
    for client in ("a", "b"):
        asked(desk, node, client)
    third = asked(desk, node, "a")
    assert third.job.step is Step.OFFERED


def test_newcomers_without_end_do_not_keep_anybody_from_a_second_turn(desk: Desk) -> None:
    node = desk.node(slots=1)
    for client in ("first", "old", "new 0", "new 1", "new 2"):
        asked(desk, node, client)
    run_one(desk, node)
    run_one(desk, node)
    second = asked(desk, node, "old")
    for number in range(3, 60):
        asked(desk, node, f"new {number}")
        run_one(desk, node)
        if second.job.step is not Step.QUEUED:
            break
    assert second.job.step is Step.OFFERED
    assert number < 12


def test_each_who_waits_has_a_place_of_its_own(desk: Desk) -> None:
    node = desk.node(slots=1)
    asked(desk, node, "first")
    tickets = [asked(desk, node, f"client {number}") for number in range(10)]
    assert [desk.broker.position(ticket) for ticket in tickets] == list(range(1, 11))
    more = [asked(desk, node, "client 3") for _ in range(2)]
    assert [desk.broker.position(ticket) for ticket in more] == [11, 12]
    order = []
    waiting = {ticket.job.id: ticket for ticket in (*tickets, *more)}
    places = {name: desk.broker.position(ticket) for name, ticket in waiting.items()}
    for _ in range(12):
        run_one(desk, node)
        order += [name for name in list(waiting) if waiting[name].job.step is Step.OFFERED]
        for name in order:
            waiting.pop(name, None)
    assert order == sorted(places, key=lambda name: places[name])


def test_who_is_given_back_comes_before_whoever_asked_later(desk: Desk) -> None:
    node = desk.node(slots=1)
    tickets = [asked(desk, node, "many") for _ in range(10)]
    for _ in range(9):
        run_one(desk, node)
    node.reject(node.an_offer(), "busy")
    later = [asked(desk, node, "other") for _ in range(9)]
    assert desk.broker.position(tickets[-1]) == 1
    assert [desk.broker.position(ticket) for ticket in later] == list(range(2, 11))


def test_clients_that_were_served_are_forgotten_though_the_queue_is_never_empty(desk: Desk) -> None:
    node = desk.node(slots=1)
    for number in range(3):
        asked(desk, node, f"client {number}")
    for number in range(3, 1000):
        asked(desk, node, f"client {number}")
        run_one(desk, node)
    assert len(node.node.queue) == 2
    assert len(node.node.queue._served) < 100
    assert len(node.node.visitors._seen) < 100

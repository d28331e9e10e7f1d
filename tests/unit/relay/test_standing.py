"""What the relay remembers of a node's work: failures outlive links, and nobody is blamed for what others did."""

from __future__ import annotations

import pytest

from tokenplace.link.events import Rewound
from tokenplace.relay.breaker import FAILURES, Circuit
from tokenplace.wire.frames import FrameKind, pack_frame
from tokenplace.wire.ids import JobId
from tokenplace.wire.messages import ENGINE_FAILED, Outcome, Reason
from unit.relay.desk import DONE, Desk, Puppet, a_card, outcome, running


@pytest.fixture
def desk() -> Desk:
    return Desk()


def state(node: Puppet) -> Circuit:
    return node.node.standing.breaker.state


def vanish(desk: Desk, count: int = 1) -> None:
    """A node takes some jobs and is never seen again in time."""
    node = desk.node(slots=count)
    tickets = [desk.submit(node.id) for _ in range(count)]
    for offer in node.offers():
        node.accept(offer.sid)
        node.send(offer.sid, 0)
    node.break_link()
    desk.wait(6)
    assert {outcome(ticket) for ticket in tickets} == {"node_lost"}


def test_a_node_that_vanishes_again_and_again_is_given_a_rest() -> None:
    desk = Desk()
    for _ in range(FAILURES):
        assert state(desk.node()) is Circuit.CLOSED
        vanish(desk)
    node = desk.node()
    assert state(node) is Circuit.OPEN
    assert not desk.broker.roster.pick(None, 8)


def test_one_that_vanishes_under_many_answers_has_failed_once(desk: Desk) -> None:
    vanish(desk, count=4 * FAILURES)
    assert state(desk.node()) is Circuit.CLOSED


def test_one_crash_of_an_engine_under_many_answers_is_one_failure(desk: Desk) -> None:
    node = desk.node(slots=4 * FAILURES)
    for turn in range(FAILURES):
        assert state(node) is Circuit.CLOSED, turn
        for _ in range(4):
            desk.submit(node.id)
        desk.now += 1
        for offer in node.offers():
            node.accept(offer.sid)
            node.finish(offer.sid, 0, Reason(ENGINE_FAILED), 4 * FAILURES)
            desk.now += 0.01
    assert state(node) is Circuit.OPEN


def test_one_that_comes_back_without_its_answers_has_failed_once_too(desk: Desk) -> None:
    for turn in range(FAILURES):
        node = desk.node(slots=4)
        assert state(node) is Circuit.CLOSED, turn
        tickets = [running(desk, node)[0] for _ in range(4)]
        node.break_link()
        desk.wait(1)
        node = desk.node(slots=4)
        for event in node.hear():
            assert isinstance(event, Rewound)
            node.reject(event.sid, "job_unknown")
        assert {outcome(ticket) for ticket in tickets} == {"node_lost"}
        node.break_link()
    assert state(desk.node()) is Circuit.OPEN


def test_answers_that_strangers_made_up_are_no_failure(desk: Desk) -> None:
    node = desk.node(slots=2)
    for number in range(3 * FAILURES):
        desk.attach(JobId(f"{number:032x}"), node.id, 0)
        node.reject(node.a_rewind().sid, "job_unknown")
    assert state(node) is Circuit.CLOSED


def test_speed_is_remembered_over_a_reconnect(desk: Desk) -> None:
    node = desk.node()
    _, sid = running(desk, node)
    desk.now += 100
    node.send(sid, 1, bytes(4000))
    node.finish(sid, 2)
    cost = node.node.cost
    assert cost > desk.node(2).node.cost + 0.3
    node.break_link()
    assert desk.node().node.cost == cost


def test_a_stranger_who_comes_and_goes_is_not_remembered(desk: Desk) -> None:
    for name in range(1, 20):
        desk.node(name).break_link()
    assert not desk.broker.roster._remembered


def test_a_node_that_comes_back_to_a_job_without_end_and_brings_nothing_is_given_up(desk: Desk) -> None:
    ticket = desk.submit(desk.node().id)
    node, tries = desk.node(), 0
    while tries < 50:
        tries += 1
        offers = node.offers()
        if not offers:
            break
        node.accept(offers[0].sid)
        node.break_link()
        desk.wait(1)
        node = desk.node()
    assert tries < 8
    assert outcome(ticket) == "node_lost"


def test_a_node_that_brings_something_each_time_may_come_back_as_often_as_it_likes(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node, linger=60, records=1)
    for number in range(1, 30):
        node.break_link()
        desk.wait(1)
        node = desk.node()
        sid = node.a_rewind().sid
        node.accept(sid, number)
        node.send(sid, number)
    node.finish(sid, 30)
    assert outcome(ticket) == "done"
    assert state(node) is Circuit.CLOSED


def test_breaking_the_rules_counts(desk: Desk) -> None:
    node = desk.node()
    for _ in range(FAILURES):
        desk.broker.misbehaved(node.node, node.relay_end, desk.now)
    assert state(node) is Circuit.OPEN


def test_a_node_that_says_that_its_engine_failed_before_the_first_record_has_failed(desk: Desk) -> None:
    node = desk.node()
    for _ in range(FAILURES):
        ticket = desk.submit(node.id)
        sid = node.an_offer()
        node.accept(sid)
        node.finish(sid, 0, Reason(ENGINE_FAILED))
        assert ticket.ended is not None
        assert ticket.ended.code == ENGINE_FAILED
    assert state(node) is Circuit.OPEN


@pytest.mark.parametrize("code", [Outcome.DONE, Outcome.ABORTED])
def test_an_answer_of_no_records_is_none(desk: Desk, code: Outcome) -> None:
    node = desk.node()
    ticket = desk.submit(node.id)
    sid = node.an_offer()
    node.accept(sid)
    node.end.end(sid, 0, Reason(code), 1)
    node.tell()
    assert outcome(ticket) == "node_lost"
    assert not node.node.standing.answered


@pytest.mark.parametrize("code", ["done", "aborted", "interrupted", "relay_stopped", "client_stalled", "no_progress"])
def test_what_only_a_relay_can_say_is_not_believed_of_a_node(desk: Desk, code: str) -> None:
    node = desk.node()
    ticket = desk.submit(node.id)
    node.reject(node.an_offer(), code)
    assert outcome(ticket) == "node_refused"
    if code not in ("done", "aborted"):
        ticket = desk.submit(node.id)
        sid = node.an_offer()
        node.accept(sid)
        node.finish(sid, 0, Reason(code))
        assert outcome(ticket) == "node_lost"


def test_a_new_card_does_not_bring_a_node_on_trial_back(desk: Desk) -> None:
    node = desk.node(slots=4)
    for _ in range(FAILURES):
        desk.broker.misbehaved(node.node, node.relay_end, desk.now)
    desk.wait(11, awake=(node,))
    assert desk.broker.roster.pick(None, 8), "half open"
    desk.submit(node.id)
    node.accept(node.an_offer())
    node.report(4, 3, a_card(1, 2))
    assert not desk.broker.roster.pick(None, 8)


def test_a_relay_that_stood_still_blames_nobody(desk: Desk) -> None:
    node = desk.node(slots=4)
    tickets = [running(desk, node, records=1)[0] for _ in range(4)]
    desk.wait(5, awake=(node,))
    desk.now += 40
    desk.broker.overslept(40)
    desk.broker.tick(desk.now)
    assert not any(ticket.ended for ticket in tickets)
    assert not node.closed
    assert state(node) is Circuit.CLOSED


def test_an_offer_that_crosses_a_pause_is_not_kept_for_a_node_that_takes_nothing(desk: Desk) -> None:
    node = desk.node()
    ticket = desk.submit(node.id)
    sid = node.an_offer()
    node.report(0, 0, a_card(1, 2, ()))
    node.reject(sid, "busy")
    assert ticket.ended is not None
    assert ticket.ended.code == "node_draining"


def test_nor_is_a_queue_that_finds_its_node_paused(desk: Desk) -> None:
    node = desk.node()
    running(desk, node)
    waiting = desk.submit(node.id)
    node.break_link()
    desk.now += 1
    Puppet(desk, a_card(1, 2, ()), 0)
    assert waiting.ended is not None
    assert waiting.ended.code == "node_draining"


def test_a_node_that_comes_to_a_relay_on_its_way_out_is_told(desk: Desk) -> None:
    desk.broker.drain()
    assert [type(event).__name__ for event in desk.node().hear()] == ["Drained"]


def test_a_link_whose_node_does_not_read_is_closed(desk: Desk) -> None:
    node = desk.node()
    for second in range(12):
        node.relay_end.receive(pack_frame(FrameKind.PING, bytes(8)) * 1000, desk.now + second)
    desk.broker.tick(desk.now)
    assert node.closed == ["This node does not read."]


def test_a_speed_is_that_of_the_whole_answer_whatever_happened_to_the_link(desk: Desk) -> None:
    speeds = []
    for name, flaps in ((1, False), (2, True)):
        node = desk.node(name)
        ticket, sid = running(desk, node, linger=60)
        for number in range(1, 9):
            node.send(sid, number, bytes(10_000))
            desk.broker.taken(ticket, ticket.received_bytes - ticket.taken_bytes, desk.now)
            ticket.pieces.clear()
            desk.now += 1
            if flaps and number == 6:
                node.break_link()
                node = desk.node(name)
                sid = node.a_rewind().sid
                node.accept(sid, number + 1)
        node.finish(sid, 9, DONE)
        speeds.append(node.node.standing.bytes_per_second)
    assert speeds[0] == pytest.approx(speeds[1])

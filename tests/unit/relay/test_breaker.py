"""A node that fails rests, and is tried again with one request."""

from __future__ import annotations

import pytest

from tokenplace.relay.breaker import FAILURES, FIRST_PAUSE, Breaker, Circuit
from tokenplace.wire.limits import TIMING
from tokenplace.wire.messages import ENGINE_FAILED, Outcome, Reason
from unit.relay.desk import DONE, Desk, Puppet

FAILED = Reason(Outcome.ABORTED, ENGINE_FAILED)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def answer(desk: Desk, node: Puppet, reason: Reason) -> None:
    desk.submit(node.id)
    sid = node.an_offer()
    node.accept(sid)
    node.finish(sid, 0, reason)


def listed(desk: Desk) -> bool:
    return bool(desk.broker.roster.pick(None, 8))


def broken(desk: Desk) -> Puppet:
    node = desk.node()
    for _ in range(FAILURES):
        answer(desk, node, FAILED)
    return node


def test_failures_in_a_row_take_a_node_off_the_list(desk: Desk) -> None:
    node = desk.node()
    for _ in range(FAILURES - 1):
        answer(desk, node, FAILED)
    answer(desk, node, DONE)
    for _ in range(FAILURES - 1):
        answer(desk, node, FAILED)
    assert listed(desk)
    answer(desk, node, FAILED)
    assert not listed(desk)


def test_after_a_pause_one_request_tries_and_a_good_answer_brings_the_node_back(desk: Desk) -> None:
    node = broken(desk)
    desk.wait(FIRST_PAUSE + 1, awake=(node,))
    node.hear()
    assert listed(desk)
    desk.submit(node.id)
    assert not listed(desk)
    sid = node.an_offer()
    node.accept(sid)
    node.finish(sid, 0, DONE)
    assert listed(desk)
    assert node.node.standing.breaker.state is Circuit.CLOSED


def test_a_failed_trial_doubles_the_pause(desk: Desk) -> None:
    node = broken(desk)
    desk.wait(FIRST_PAUSE + 1, awake=(node,))
    node.hear()
    answer(desk, node, FAILED)
    desk.wait(FIRST_PAUSE + 1, awake=(node,))
    assert not listed(desk)
    desk.wait(FIRST_PAUSE, awake=(node,))
    assert listed(desk)


def test_a_trial_that_tells_nothing_leaves_the_door_open_for_another(desk: Desk) -> None:
    node = broken(desk)
    desk.wait(FIRST_PAUSE + 1, awake=(node,))
    node.hear()
    desk.submit(node.id)
    node.reject(node.an_offer(), "unopenable")
    assert listed(desk)


def test_what_a_client_can_cause_does_not_count(desk: Desk) -> None:
    node = desk.node()
    for _ in range(3 * FAILURES):
        desk.submit(node.id)
        node.reject(node.an_offer(), "unopenable")
        answer(desk, node, Reason(Outcome.ABORTED, "invalid_request_error"))
    assert listed(desk)


def test_a_node_that_sits_on_jobs_is_found_out(desk: Desk) -> None:
    node = desk.node(slots=FAILURES)
    for _ in range(FAILURES):
        desk.submit(node.id)
    desk.wait(TIMING.first_piece + 1, awake=(node,))
    assert not listed(desk)


def test_a_client_that_names_a_resting_node_still_finds_it(desk: Desk) -> None:
    node = broken(desk)
    assert [found.id for found in desk.broker.roster.pick(None, 1, node.id)] == [node.id]
    desk.submit(node.id)


def test_a_breaker_that_never_opened_has_no_pause_to_end() -> None:
    assert not Breaker().look(1e9)

"""When tickets are looked at again, and that the list of it stays short."""

from __future__ import annotations

from unit.relay.desk import Desk, outcome, running


def test_a_client_that_comes_back_without_end_leaves_nothing_behind() -> None:
    desk = Desk()
    node = desk.node()
    running(desk, node)
    waiting = desk.submit(node.id, linger=60)
    for _ in range(5_000):
        desk.attach(waiting.job.id, node.id, 0, 60)
    assert len(desk.broker._deadlines) < 10


def test_tickets_that_ended_are_thrown_out_long_before_they_would_be_due() -> None:
    desk = Desk()
    node = desk.node()
    for _ in range(2_000):
        _, sid = running(desk, node)
        node.finish(sid, 1)
    desk.broker.tick(desk.now)
    assert len(desk.broker._deadlines) < 300


def test_a_deadline_that_moved_closer_counts() -> None:
    desk = Desk()
    node = desk.node()
    ticket, _ = running(desk, node, linger=2)
    desk.wait(1, awake=(node,))
    desk.leave(ticket)
    desk.wait(2.5, awake=(node,))
    assert outcome(ticket) == "cancelled"

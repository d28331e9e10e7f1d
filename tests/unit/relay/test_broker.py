from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable

import pytest

from tokenplace.errors import Draining, JobUnknown, NodeUnknown, QueueFull, Refused
from tokenplace.link.events import Cancelled
from tokenplace.relay.jobs import Step
from tokenplace.relay.tickets import Ticket
from tokenplace.wire.ids import Sid, job_id_of
from tokenplace.wire.limits import CREDIT_WINDOW, MAX_STREAMS_PER_NODE, TIMING, Timing
from tokenplace.wire.messages import Outcome, Reason, Status
from tokenplace.wire.request import RequestHeader
from unit.relay.desk import DONE, Desk, Puppet, a_card, outcome, real_runs, running, serve


@pytest.fixture
def desk() -> Desk:
    return Desk()


# -- the door ----------------------------------------------------------------------------------------------------------


def test_a_job_for_a_node_that_is_not_here_is_refused_and_counted(desk: Desk) -> None:
    with pytest.raises(NodeUnknown):
        desk.submit(a_card(9).node)
    assert desk.broker.counts.refusals == {"node_unknown": 1}
    assert desk.broker.held_bytes == 0


def test_a_full_queue_is_refused_with_an_honest_time_to_wait() -> None:
    desk = Desk(max_queue=3)
    node = desk.node(slots=2)
    for _ in range(5):
        desk.submit(node.id)
    node.node.standing.seconds_per_job = 10.0
    with pytest.raises(QueueFull) as refused:
        desk.submit(node.id)
    assert refused.value.retry_after == 15.0  # three wait, two at a time, ten seconds each
    assert refused.value.status == 429


def test_requests_beyond_the_memory_are_refused_before_they_are_kept() -> None:
    desk = Desk(max_bytes=1000)
    desk.broker.reserve(900)
    with pytest.raises(QueueFull) as refused:
        desk.broker.reserve(101)
    assert refused.value.retry_after
    assert desk.broker.held_bytes == 900
    desk.broker.release(900)
    desk.broker.reserve(1000)


def test_the_same_request_twice_at_once_is_refused(desk: Desk) -> None:
    node = desk.node()
    sealed = desk.request()
    desk.submit_sealed(sealed, node.id)
    with pytest.raises(Refused) as refused:
        desk.submit_sealed(sealed, node.id)
    assert (refused.value.code, refused.value.status) == ("job_exists", 409)
    assert desk.broker.held_bytes == len(sealed)


def test_a_client_cannot_ask_a_job_to_linger_for_ever(desk: Desk) -> None:
    node = desk.node()
    assert desk.submit(node.id, linger=1e9).linger == TIMING.max_linger
    assert desk.submit(node.id, linger=-1).linger == 0


# -- offers and slots --------------------------------------------------------------------------------------------------


def test_offers_go_out_only_while_slots_are_free(desk: Desk) -> None:
    node = desk.node(slots=2)
    tickets = [desk.submit(node.id) for _ in range(4)]
    assert len(node.offers()) == 2
    assert [ticket.job.step for ticket in tickets] == [Step.OFFERED, Step.OFFERED, Step.QUEUED, Step.QUEUED]
    assert [desk.broker.position(ticket) for ticket in tickets] == [0, 0, 1, 2]


def test_the_end_of_one_job_is_the_offer_of_the_next_in_line(desk: Desk) -> None:
    node = desk.node()
    first, second, third = (desk.submit(node.id) for _ in range(3))
    sid = node.an_offer()
    node.accept(sid)
    node.send(sid, 0)
    node.finish(sid, 1)
    assert outcome(first) == Outcome.DONE
    assert (second.job.step, third.job.step) == (Step.OFFERED, Step.QUEUED)
    assert desk.broker.position(third) == 1


def test_what_the_node_counts_as_free_is_less_by_what_it_had_not_seen_yet(desk: Desk) -> None:
    node = desk.node(slots=2)
    node.end.status(Status(2, 2))  # said before the offer arrives
    desk.submit(node.id)
    node.tell()
    assert node.node.free == 1
    node.hear()
    node.report(2, 1)
    assert node.node.free == 1


def test_a_node_that_gets_more_slots_is_offered_what_waits(desk: Desk) -> None:
    node = desk.node(slots=0)
    desk.submit(node.id)
    assert not node.offers()
    node.report(1, 1)
    node.an_offer()


def test_a_busy_node_gives_the_job_back_to_the_head_of_its_queue(desk: Desk) -> None:
    node = desk.node()
    first, second = desk.submit(node.id), desk.submit(node.id)
    node.reject(node.an_offer(), "busy")
    assert (first.job.step, desk.broker.position(first), desk.broker.position(second)) == (Step.QUEUED, 1, 2)
    assert not node.offers()
    node.report(1, 1)
    assert node.an_offer() == 2
    assert first.job.step is Step.OFFERED


def test_being_given_back_does_not_start_the_waiting_time_again(desk: Desk) -> None:
    node = desk.node()
    ticket = desk.submit(node.id)
    for _ in range(12):
        if ticket.job.ended:
            break
        node.reject(node.an_offer(), "busy")
        desk.wait(10, awake=(node,))
        node.report(1, 1)
    assert outcome(ticket) == Outcome.QUEUE_TIMEOUT


def test_a_refusal_of_the_node_ends_the_job_and_frees_its_slot(desk: Desk) -> None:
    node = desk.node()
    ticket, waiting = desk.submit(node.id), desk.submit(node.id)
    node.reject(node.an_offer(), "unopenable")
    assert outcome(ticket) == "unopenable"
    assert desk.broker.counts.outcomes == {"node_refused": 1}
    assert waiting.job.step is Step.OFFERED


def test_a_cancel_that_crosses_the_end_does_not_lose_the_slot(desk: Desk) -> None:
    node = desk.node()
    runs, working = real_runs(node, slots=1)
    ticket = desk.submit(node.id)
    serve(runs, node, desk.now)
    runs.finish(working.pop(ticket.job.id), DONE, desk.now)  # the END is on its way …
    desk.leave(ticket)  # … and so is the CANCEL
    node.tell()
    serve(runs, node, desk.now)
    node.tell()
    assert node.node.free == 1


def test_a_cancel_that_crosses_a_refusal_does_not_lose_the_slot(desk: Desk) -> None:
    node = desk.node()
    runs, _ = real_runs(node, slots=1)
    sealed = desk.request()
    ticket = desk.submit_sealed(sealed, node.id)
    runs.draining = True
    serve(runs, node, desk.now)  # the REJECT is on its way
    runs.draining = False
    desk.leave(ticket)
    node.tell()
    serve(runs, node, desk.now)
    node.tell()
    assert node.node.free == 1


def test_a_wild_claim_of_records_does_not_hold_the_slot_for_ever(desk: Desk) -> None:
    node = desk.node()
    runs, _ = real_runs(node, slots=1)
    ticket = desk.submit(node.id)
    serve(runs, node, desk.now)
    node.tell()
    claim = desk.attach(ticket.job.id, node.id, 999)
    serve(runs, node, desk.now)
    node.tell()
    assert outcome(claim) == "not_there_yet"
    runs.tick(desk.now + TIMING.orphan)
    node.tell()
    assert (runs.busy, node.node.free) == (0, 1)


def test_a_claim_for_a_job_that_the_node_refused_does_not_lose_the_slot(desk: Desk) -> None:
    node = desk.node()
    runs, _ = real_runs(node, slots=1)
    ticket = desk.submit(node.id)
    runs.draining = True
    serve(runs, node, desk.now)
    runs.draining = False
    desk.attach(ticket.job.id, node.id, 1)
    node.tell()
    serve(runs, node, desk.now)
    node.tell()
    assert node.node.free == 1


# -- records and credit ------------------------------------------------------------------------------------------------


def test_the_request_is_let_go_with_the_first_record(desk: Desk) -> None:
    node = desk.node()
    ticket = desk.submit(node.id, size=5000)
    sid = node.an_offer()
    node.accept(sid)
    assert desk.broker.held_bytes > 5000
    node.send(sid, 0)
    assert desk.broker.held_bytes == 0
    assert ticket.sealed is None
    assert ticket.take() == b"piece"


@pytest.mark.parametrize("end", ["leave", "timeout", "reject", "drain", "stop", "node leaves"])
def test_however_a_job_ends_its_memory_is_given_back(desk: Desk, end: str) -> None:
    node = desk.node()
    desk.submit(node.id)
    ticket = desk.submit(node.id)
    match end:
        case "leave":
            desk.leave(ticket)
            desk.broker.cancel(job_id_of((1).to_bytes(16, "big")), node.id)
        case "timeout":
            desk.wait(TIMING.first_piece + 1, awake=(node,))
        case "reject":
            node.reject(node.an_offer(), "unopenable")
            node.reject(node.an_offer(), "unopenable")
        case "drain":
            desk.broker.drain()
            node.reject(node.an_offer(), "unopenable")
        case "stop":
            desk.broker.stop()
        case "node leaves":
            node.break_link()
            desk.wait(TIMING.return_grace_unseen + 1)
    assert desk.broker.held_bytes == 0
    assert not desk.broker.tickets


def test_credit_grows_with_what_the_client_took_and_in_steps(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node, records=0)
    node.hear()
    piece = bytes(10_000)
    for number in range(6):
        node.send(sid, number, piece)
    assert not node.hear()
    desk.broker.taken(ticket, len(ticket.take()), desk.now)
    assert node.granted() == [CREDIT_WINDOW + 60_000]


def test_an_ended_ticket_grants_nothing_to_whoever_has_its_number_now(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node)
    desk.broker.cancel(ticket.job.id, node.id)
    node.break_link()
    back = desk.node()
    other, same = running(desk, back)
    assert same == sid
    assert not other.job.ended
    desk.broker.taken(ticket, 500_000, desk.now)
    assert not back.hear()


# -- clients that leave and come back ----------------------------------------------------------------------------------


def test_a_client_that_leaves_cancels_its_job_at_once(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node)
    desk.leave(ticket)
    assert outcome(ticket) == Outcome.CANCELLED
    assert node.hear() == [Cancelled(sid)]


def test_a_client_that_leaves_the_queue_makes_room(desk: Desk) -> None:
    node = desk.node()
    _, second, third = (desk.submit(node.id) for _ in range(3))
    desk.leave(second)
    assert desk.broker.position(third) == 1


def test_a_lingering_job_goes_on_and_is_cancelled_when_the_time_is_over(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node, linger=5)
    desk.leave(ticket)
    desk.wait(4.5, awake=(node,))
    node.send(sid, 1)
    assert not ticket.job.ended
    desk.wait(1, awake=(node,))
    assert outcome(ticket) == Outcome.CANCELLED
    assert Cancelled(sid) in node.hear()


def test_leaving_an_ended_job_changes_nothing(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node)
    node.finish(sid, 1)
    desk.leave(ticket)
    assert outcome(ticket) == Outcome.DONE
    assert desk.broker.counts.outcomes == {"done": 1}


def test_a_client_back_before_the_first_record_keeps_its_place(desk: Desk) -> None:
    node = desk.node()
    desk.submit(node.id)
    ticket, behind = desk.submit(node.id, linger=5), desk.submit(node.id)
    desk.leave(ticket)
    assert desk.attach(ticket.job.id, node.id, 0, 5) is ticket
    assert (desk.broker.position(ticket), desk.broker.position(behind)) == (1, 2)
    desk.wait(20, awake=(node,))
    assert not ticket.job.ended


def test_two_connections_for_one_waiting_job_the_first_is_told(desk: Desk) -> None:
    node = desk.node()
    ticket = desk.submit(node.id)
    woken: list[int] = []
    ticket.wake = lambda: woken.append(1)
    assert desk.attach(ticket.job.id, node.id, 0) is ticket
    assert woken
    assert ticket.wake is None


def test_a_client_back_later_is_rewound_under_a_fresh_sid(desk: Desk) -> None:
    node = desk.node()
    old, sid = running(desk, node, linger=5, records=3)
    desk.leave(old)
    new = desk.attach(old.job.id, node.id, 2, 5)
    rewound = node.a_rewind()
    assert (rewound.job, rewound.next_record, rewound.allowed) == (old.job.id, 2, CREDIT_WINDOW)
    assert rewound.sid != sid
    assert outcome(old) == Outcome.MOVED
    node.send(sid, 3)  # crossed the REWIND: stale
    node.accept(rewound.sid, 2)
    node.send(rewound.sid, 2, b"again")
    assert new.take() == b"again"
    node.finish(rewound.sid, 3)
    assert outcome(new) == Outcome.DONE


def test_a_job_of_another_relay_is_taken_over_by_asking_the_node(desk: Desk) -> None:
    node = desk.node()
    ticket = desk.attach(job_id_of(b"j" * 16), node.id, 7)
    rewound = node.a_rewind()
    assert rewound.next_record == 7
    node.accept(rewound.sid, 7)
    node.send(rewound.sid, 7)
    assert ticket.take() == b"piece"


def test_an_answer_the_node_no_longer_holds_is_a_lost_one(desk: Desk) -> None:
    node = desk.node()
    ticket = desk.attach(job_id_of(b"j" * 16), node.id, 7)
    node.reject(node.a_rewind().sid, "job_unknown")
    assert outcome(ticket) == Outcome.NODE_LOST
    assert node.node.free == 1


def test_one_client_that_goes_on_with_whatever_leaves_room_for_others(desk: Desk) -> None:
    node = desk.node()
    jobs = (job_id_of(number.to_bytes(16, "big")) for number in range(1000))
    held = 3 * MAX_STREAMS_PER_NODE
    for _ in range(held):
        desk.attach(next(jobs), node.id, 1, client="flood")
    with pytest.raises(QueueFull, match="192 of them yours") as refused:
        desk.attach(next(jobs), node.id, 1, client="flood")
    assert refused.value.retry_after
    assert [desk.attach(next(jobs), node.id, 1, client=f"guest {number}") for number in range(20)]
    assert len(node.node.active) == held + 20


def test_who_comes_back_to_what_it_holds_is_never_one_too_many(desk: Desk) -> None:
    node = desk.node()
    mine = desk.attach(job_id_of(b"j" * 16), node.id, 1, 5, client="me")
    for number in range(1000):
        with contextlib.suppress(QueueFull):
            desk.attach(job_id_of(number.to_bytes(16, "big")), node.id, 1, client="me")
    assert desk.attach(mine.job.id, node.id, 1, 5, client="me") is not mine


def test_an_answer_that_went_on_elsewhere_ends_here_as_moved(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node)
    node.finish(sid, 1, Reason(Outcome.MOVED))
    assert outcome(ticket) == Outcome.MOVED
    assert ticket.job.step is Step.CANCELLED


def test_a_job_is_only_found_with_its_own_node(desk: Desk) -> None:
    node, other = desk.node(1), desk.node(2)
    ticket = desk.submit(node.id)
    with pytest.raises(JobUnknown):
        desk.attach(ticket.job.id, other.id, 0)
    with pytest.raises(JobUnknown):
        desk.broker.cancel(ticket.job.id, other.id)
    with pytest.raises(NodeUnknown):
        desk.attach(ticket.job.id, a_card(9).node, 0)
    assert not ticket.job.ended


# -- links that break --------------------------------------------------------------------------------------------------


def test_a_node_that_comes_back_is_told_where_to_go_on(desk: Desk) -> None:
    node = desk.node()
    ticket, _ = running(desk, node, records=2)
    node.break_link()
    assert ticket.job.step is Step.SEVERED
    desk.wait(TIMING.return_grace_seen / 2)
    back = desk.node()
    rewound = back.a_rewind()
    assert (rewound.job, rewound.next_record) == (ticket.job.id, 2)
    back.accept(rewound.sid, 2)
    back.send(rewound.sid, 2, b"!")
    back.finish(rewound.sid, 3)
    assert ticket.take() == b"piecepiece!"
    assert outcome(ticket) == Outcome.DONE


def test_what_waits_for_the_client_is_credit_the_returning_node_does_not_get(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node, records=0)
    node.send(sid, 0, bytes(60_000))
    node.break_link()
    back = desk.node()
    rewound = back.a_rewind()
    assert rewound.allowed == CREDIT_WINDOW - 60_000
    back.accept(rewound.sid, 1)
    desk.broker.taken(ticket, len(ticket.take()), desk.now)
    assert back.hear()[-1] == (rewound.sid, CREDIT_WINDOW)


def test_a_request_of_which_nothing_arrived_is_offered_again(desk: Desk) -> None:
    node = desk.node()
    sealed = desk.request()
    ticket = desk.submit_sealed(sealed, node.id)
    node.accept(node.an_offer())
    node.break_link()
    back = desk.node()
    (offer,) = back.offers()
    assert offer.sealed == sealed
    assert ticket.job.step is Step.OFFERED


def test_a_request_that_was_never_offered_returns_to_the_queue(desk: Desk) -> None:
    node = desk.node()
    desk.submit(node.id)
    waiting = desk.submit(node.id)
    node.break_link()
    back = desk.node()
    assert waiting.job.step in (Step.QUEUED, Step.OFFERED)
    assert waiting.job.id in {RequestHeader.parse(offer.sealed).job for offer in back.offers()} | set(back.node.queue)


@pytest.mark.parametrize(("records", "grace"), [(0, TIMING.return_grace_unseen), (2, TIMING.return_grace_seen)])
def test_a_node_that_does_not_come_back_is_lost(desk: Desk, records: int, grace: float) -> None:
    node = desk.node()
    ticket, _ = running(desk, node, records=records)
    node.break_link()
    desk.wait(grace - 0.5)
    assert not ticket.job.ended
    desk.wait(1.0)
    assert outcome(ticket) == Outcome.NODE_LOST
    assert desk.broker.roster.get(node.id) is None


def test_a_client_may_wait_for_a_node_that_is_away(desk: Desk) -> None:
    node = desk.node()
    old, _ = running(desk, node, records=3)
    node.break_link()
    new = desk.attach(old.job.id, node.id, 3)
    assert new.job.step is Step.SEVERED
    back = desk.node()
    assert back.a_rewind().next_record == 3


def test_whoever_proved_the_identity_last_holds_it(desk: Desk) -> None:
    first = desk.node()
    ticket, sid = running(desk, first, records=1)
    second = desk.node()
    assert first.closed == ["superseded"]
    assert second.a_rewind().next_record == 1
    first.end.data(sid, 1, b"late")
    first.tell()
    first.break_link()
    assert not ticket.job.ended
    assert len(desk.broker.roster) == 1
    assert ticket.take() == b"piece"


def test_a_silent_link_is_closed_and_a_quiet_one_is_asked(desk: Desk) -> None:
    node = desk.node()
    desk.wait(TIMING.heartbeat)
    assert node.relay_end.last_pinged == desk.now
    desk.wait(TIMING.silence)
    assert node.closed == ["silent"]
    assert len(desk.broker.roster) == 0


def test_an_answered_ping_keeps_the_link(desk: Desk) -> None:
    node = desk.node()
    for _ in range(60):
        desk.wait(0.5)
        node.hear()
        node.tell()
    assert not node.closed
    assert node.node.rtt == 0.0


# -- cards -------------------------------------------------------------------------------------------------------------


def test_a_newer_card_replaces_the_older_and_never_the_other_way(desk: Desk) -> None:
    node = desk.node(sequence=5)
    node.report(1, 1, a_card(1, 6, models=("n",)))
    assert desk.broker.roster.models() == {"n": 1}
    node.report(1, 1, a_card(1, 5, models=("old",)))
    assert desk.broker.roster.models() == {"n": 1}
    node.report(1, 1, a_card(2, 9, models=("foreign",)))
    assert desk.broker.roster.models() == {"n": 1}


def test_a_returning_node_brings_its_new_models(desk: Desk) -> None:
    desk.node(sequence=1, models=("a", "b"))
    desk.node(sequence=2, models=("b", "c"))
    assert desk.broker.roster.models() == {"b": 1, "c": 1}


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_job_that_waits_a_minute_for_a_slot_ends_by_name(desk: Desk) -> None:
    node = desk.node()
    running(desk, node)
    ticket = desk.submit(node.id)
    for _ in range(TIMING.queue_wait.__int__() * 2):
        node.end.progress(Sid(1))
        node.tell()
        desk.wait(0.5)
    assert outcome(ticket) == Outcome.QUEUE_TIMEOUT
    assert desk.now - ticket.created <= TIMING.queue_wait + 1


def progressing(desk: Desk, node: Puppet, sid: Sid, seconds: float) -> None:
    for _ in range(int(seconds)):
        desk.wait(1)
        node.end.progress(sid)
        node.tell()


@pytest.mark.parametrize("accepted", [False, True])
def test_a_first_piece_may_take_two_minutes_and_no_longer_without_a_sign(desk: Desk, accepted: bool) -> None:
    node = desk.node()
    ticket = desk.submit(node.id)
    sid = node.an_offer()
    if accepted:
        node.accept(sid)
    desk.wait(TIMING.first_piece - 1, awake=(node,))
    assert not ticket.job.ended
    desk.wait(1.5, awake=(node,))
    assert outcome(ticket) == Outcome.NO_PROGRESS
    assert node.hear()[-1] == Cancelled(sid)


def test_signs_of_work_are_enough_for_as_long_as_they_come(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node, records=0)
    progressing(desk, node, sid, 900)
    assert not ticket.job.ended


def test_a_started_answer_that_falls_silent_ends_in_half_a_minute(desk: Desk) -> None:
    node = desk.node()
    ticket, _ = running(desk, node)
    desk.broker.taken(ticket, len(ticket.take()), desk.now)
    desk.wait(TIMING.silent_job - 1, awake=(node,))
    assert not ticket.job.ended
    desk.wait(1.5, awake=(node,))
    assert outcome(ticket) == Outcome.NO_PROGRESS


def test_a_reader_who_takes_nothing_for_three_minutes_ends_its_job(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node)
    ticket.take()  # given to the socket, which does not take it
    progressing(desk, node, sid, TIMING.reader_stall - 1)
    assert not ticket.job.ended
    progressing(desk, node, sid, 2)
    assert outcome(ticket) == Outcome.CLIENT_STALLED


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_a_draining_relay_takes_nothing_and_lets_answers_end(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node)
    waiting = desk.submit(node.id)
    desk.broker.drain()
    assert outcome(waiting) == Outcome.RELAY_STOPPED
    with pytest.raises(Draining) as refusal:
        desk.submit(node.id)
    assert refusal.value.retry_after == TIMING.drain
    with pytest.raises(Draining):
        desk.attach(job_id_of(b"j" * 16), node.id, 1)
    node.send(sid, 1)
    node.finish(sid, 2)
    assert outcome(ticket) == Outcome.DONE


def test_a_client_that_lost_its_connection_to_a_draining_relay_is_given_the_rest(desk: Desk) -> None:
    node = desk.node()
    ticket, _ = running(desk, node, linger=5)
    desk.broker.drain()
    desk.leave(ticket)
    desk.now += 0.5
    again = desk.attach(ticket.job.id, node.id, 1, 5)
    sid = node.a_rewind().sid
    node.accept(sid, 1)
    node.send(sid, 1, b"second")
    node.finish(sid, 2)
    assert again.take() == b"second"
    assert outcome(again) == Outcome.DONE


def test_whoever_comes_back_stays_who_it_was(desk: Desk) -> None:
    """Else it could have the last free slot too, which is kept for who holds none."""
    node = desk.node(slots=2)
    desk.submit(node.id, client="other")
    sid = node.an_offer()
    node.accept(sid)
    node.finish(sid, 0, DONE, 2)
    ticket = desk.submit(node.id, client="mine", linger=5)
    sid = node.an_offer()
    node.accept(sid)
    node.send(sid, 0)
    desk.attach(ticket.job.id, node.id, 1, 5)
    assert "mine" in node.node.barred(desk.now)


def test_what_is_left_when_the_relay_stops_ends_by_name(desk: Desk) -> None:
    node = desk.node()
    ticket, _ = running(desk, node)
    desk.broker.stop()
    assert outcome(ticket) == Outcome.RELAY_STOPPED


def test_a_draining_node_is_not_shown_and_its_queue_may_go_elsewhere(desk: Desk) -> None:
    node = desk.node()
    ticket, sid = running(desk, node)
    waiting = desk.submit(node.id)
    node.end.drain()
    node.tell()
    assert outcome(waiting) == "node_draining"
    assert not desk.broker.roster.pick(None, 8)
    with pytest.raises(NodeUnknown):
        desk.submit(node.id)
    node.finish(sid, 1)
    assert outcome(ticket) == Outcome.DONE


# -- the books ---------------------------------------------------------------------------------------------------------


def test_every_end_is_counted_once_under_a_name_of_a_closed_set(desk: Desk) -> None:
    node = desk.node(slots=4)
    ends: list[Callable[[Ticket, Sid], None]] = [
        lambda ticket, sid: node.finish(sid, 1, free=4),
        lambda ticket, sid: node.finish(sid, 1, Reason("made_up"), free=4),
        lambda ticket, sid: desk.leave(ticket),
        lambda ticket, sid: node.finish(sid, 1, Reason(Outcome.ABORTED)),
    ]
    for end in ends:
        ticket, sid = running(desk, node)
        end(ticket, sid)
        assert ticket.ended is not None
    assert desk.broker.counts.outcomes == {"done": 1, "node_refused": 1, "cancelled": 1, "aborted": 1}
    assert desk.broker.counts.pieces == 4
    assert desk.broker.counts.bytes == 4 * len(b"piece")


def test_timing_of_the_protocol_is_what_users_were_promised() -> None:
    timing = Timing()
    assert timing.sign_of_life <= 5
    assert timing.sign_of_life_again <= 10
    assert timing.silence <= 15
    assert timing.heartbeat * 2 < timing.silence
    assert timing.progress_every * 2 < timing.silent_job


def test_what_waits_for_a_node_that_pauses_may_go_elsewhere(desk: Desk) -> None:
    node = desk.node(slots=1)
    running_now, waiting = desk.submit(node.id), desk.submit(node.id)
    node.report(0, 0, a_card(1, sequence=2, models=()))
    assert outcome(waiting) == "node_draining"
    assert not running_now.job.ended
    assert desk.broker.roster.pick(None, 8) == []
    with pytest.raises(NodeUnknown):
        desk.submit(node.id)
    node.report(1, 1, a_card(1, sequence=3))
    assert [found.id for found in desk.broker.roster.pick(None, 8)] == [node.id]


# -- memory ------------------------------------------------------------------------------------------------------------


def test_a_job_that_has_ended_is_forgotten_long_before_it_would_have_been_due(desk: Desk) -> None:
    """A thousand short answers a second, each remembered for half a minute, would be most of a small relay's memory."""
    node = desk.node()
    for _ in range(2000):
        desk.submit(node.id)
        sid = node.an_offer()
        node.accept(sid)
        node.finish(sid, 0)
    desk.wait(0.5, awake=(node,))
    node.heard.clear()
    assert sum(isinstance(each, Ticket) for each in gc.get_objects()) < 1000


def test_forgetting_what_has_ended_forgets_no_deadline(desk: Desk) -> None:
    node = desk.node()
    waiting = desk.submit(node.id)
    other = desk.node(2)
    for _ in range(1000):
        desk.submit(other.id)
        sid = other.an_offer()
        other.accept(sid)
        other.finish(sid, 0)
    desk.wait(TIMING.first_piece + 1, awake=(node, other))
    assert outcome(waiting) == Outcome.NO_PROGRESS

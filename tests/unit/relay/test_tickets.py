from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.relay.jobs import Job, Step
from tokenplace.relay.tickets import Ticket
from tokenplace.wire.ids import Sid, job_id_of, node_id_of
from tokenplace.wire.limits import CREDIT_STEP, CREDIT_WINDOW, MAX_RECORD, TIMING
from tokenplace.wire.messages import Outcome
from tokenplace.wire.stream import NONCE_BYTES, PREFIX_BYTES

LARGEST = MAX_RECORD + 2 * PREFIX_BYTES + NONCE_BYTES
"""A record as large as can be, with the nonce before it."""


def a_ticket(step: Step = Step.RUNNING) -> Ticket:
    job = Job(job_id_of(b"j" * 16), node_id_of(b"n" * 32), step)
    return Ticket(job=job, linger=5, next_record=0, since=0, created=0)


def test_what_waits_is_taken_in_one_piece_and_once() -> None:
    ticket = a_ticket()
    for piece in (b"a", b"b", b"c"):
        ticket.put(piece, 1)
    assert (ticket.next_record, ticket.take(), ticket.take()) == (3, b"abc", b"")


def test_credit_is_told_in_steps() -> None:
    ticket = a_ticket()
    ticket.put(bytes(CREDIT_STEP), 1)
    ticket.taken(CREDIT_STEP - 1, 1)
    assert ticket.credit_due() is None
    ticket.taken(1, 1)
    assert ticket.credit_due() == CREDIT_WINDOW + CREDIT_STEP
    assert ticket.credit_due() is None


def test_a_fresh_sid_may_fill_what_the_window_has_left() -> None:
    ticket = a_ticket()
    ticket.put(bytes(50_000), 1)
    ticket.taken(20_000, 1)
    assert ticket.room == CREDIT_WINDOW - 30_000
    ticket.restart(Sid(2), 1)
    assert (ticket.received_bytes, ticket.taken_bytes, ticket.granted) == (30_000, 0, CREDIT_WINDOW - 30_000)
    ticket.taken(30_000, 2)
    assert ticket.credit_due() == CREDIT_WINDOW


moves = st.lists(st.tuples(st.sampled_from(["put", "take", "restart"]), st.integers(1, LARGEST)), max_size=60)


@settings(max_examples=150, deadline=None, database=None)
@given(moves)
def test_the_window_holds_and_never_shuts_for_a_client_that_reads(moves: list[tuple[str, int]]) -> None:
    ticket, sent, granted, numbers = a_ticket(), 0, CREDIT_WINDOW, iter(range(1, 100))
    for move, size in moves:
        match move:
            case "put" if sent + size <= granted:
                ticket.put(bytes(size), 1)
                sent += size
            case "take":
                ticket.taken(len(ticket.take()), 1)
                granted = ticket.credit_due() or granted
            case "restart":
                ticket.restart(Sid(next(numbers)), 1)
                sent, granted = 0, ticket.granted
        assert sum(map(len, ticket.pieces)) == ticket.received_bytes - ticket.taken_bytes <= CREDIT_WINDOW
    ticket.taken(len(ticket.take()), 1)
    granted = ticket.credit_due() or granted
    assert granted - sent >= LARGEST, "a record that could never be sent"


@pytest.mark.parametrize(
    ("step", "records", "unread", "seconds", "outcome"),
    [
        (Step.QUEUED, 0, False, TIMING.queue_wait, Outcome.QUEUE_TIMEOUT),
        (Step.OFFERED, 0, False, TIMING.first_piece, Outcome.NO_PROGRESS),
        (Step.RUNNING, 0, False, TIMING.first_piece, Outcome.NO_PROGRESS),
        (Step.RUNNING, 1, False, TIMING.silent_job, Outcome.NO_PROGRESS),
        (Step.RUNNING, 1, True, TIMING.reader_stall, Outcome.CLIENT_STALLED),
        (Step.SEVERED, 0, False, TIMING.return_grace_unseen, Outcome.NODE_LOST),
        (Step.SEVERED, 1, False, TIMING.return_grace_seen, Outcome.NODE_LOST),
    ],
)
def test_every_step_has_its_patience(step: Step, records: int, unread: bool, seconds: float, outcome: Outcome) -> None:
    ticket = a_ticket(step)
    for _ in range(records):
        ticket.put(b"piece", 100)
        if not unread:
            ticket.taken(len(ticket.take()), 100)
    ticket.since = 100
    assert ticket.due(TIMING) == (100 + seconds, outcome)


def test_a_client_that_left_has_only_its_linger() -> None:
    ticket = a_ticket()
    ticket.left_at = 200
    assert ticket.due(TIMING) == (205, Outcome.CANCELLED)

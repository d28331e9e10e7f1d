"""Whose answer is whose: order, ties, tokens, bounds, time."""

from __future__ import annotations

import pytest

from tokenplace.errors import NodeUnknown, Refused
from tokenplace.relay.classic.bounds import CLASSIC_TIMING, MAX_PER_MAILBOX, QUESTION_COST
from tokenplace.relay.classic.questions import Left
from unit.relay.classic.classic_desk import ELSEWHERE, ClassicDesk, told

NODE = "198.51.100.200"


def serve(desk: ClassicDesk, words: str, client: str = "C") -> bool:
    """The node takes the next job and answers it."""
    assert desk.poll("K", at=NODE).jobs
    return desk.answer(words, client, at=NODE)


def a_desk(**options: int) -> ClassicDesk:
    desk = ClassicDesk(**options)
    desk.poll("K", at=NODE)
    return desk


def test_a_question_for_a_key_that_nobody_holds_is_refused() -> None:
    with pytest.raises(NodeUnknown):
        ClassicDesk().ask("K")


def test_answers_come_in_the_order_of_the_questions_and_none_is_overwritten() -> None:
    desk = a_desk()
    desk.ask("K")
    desk.ask("K")
    serve(desk, "first")
    serve(desk, "second")
    assert desk.read() == told("first")
    assert desk.read() == told("second")
    assert desk.read() is None
    assert desk.room.mailboxes.shares.held == 0


def test_an_answer_that_comes_after_its_asker_gave_up_is_not_given_to_the_next_question() -> None:
    desk = a_desk()
    desk.ask("K")
    desk.poll("K", at=NODE)
    assert desk.read() is None
    desk.ask("K")
    assert desk.answer("stale", at=NODE) is False, "and the node hears that nobody waits for it"
    assert desk.read() is None
    serve(desk, "fresh")
    assert desk.read() == told("fresh")
    assert desk.room.mailboxes.left[Left.SUPERSEDED] == 1


def test_an_answer_that_lay_unread_when_its_asker_asked_anew_is_not_given_either() -> None:
    desk = a_desk()
    desk.ask("K")
    assert desk.read() is None
    serve(desk, "stale")
    desk.ask("K")
    assert desk.read() is None
    serve(desk, "fresh")
    assert desk.read() == told("fresh")


def test_who_names_the_question_gets_its_answer_and_no_other() -> None:
    desk = a_desk()
    first, _ = desk.ask("K")
    second, token = desk.ask("K")
    serve(desk, "first")
    serve(desk, "second")
    assert desk.read(request_id=second.id, token=token) == told("second")
    assert desk.read(request_id=first.id) == told("first")
    with pytest.raises(Refused, match="read already"):
        desk.read(request_id=first.id)


def test_a_named_question_is_never_superseded_and_keeps_nobody_waiting() -> None:
    desk = a_desk()
    named, token = desk.ask("K")
    assert desk.read(request_id=named.id, token=token) is None
    desk.ask("K")
    desk.ask("K")
    serve(desk, "named")
    serve(desk, "unnamed")
    assert desk.read() == told("unnamed")
    assert desk.read(request_id=named.id, token=token) == told("named")


def test_a_stranger_who_knows_the_public_key_reads_nothing() -> None:
    desk = a_desk()
    question, token = desk.ask("K")
    serve(desk, "mine")
    assert desk.read(at=ELSEWHERE) is None
    for stolen in (None, "guess"):
        with pytest.raises(Refused):
            desk.read(at=ELSEWHERE, request_id=question.id, token=stolen)
    with pytest.raises(Refused):
        desk.read("another key", request_id=question.id, token=token)
    assert desk.read() == told("mine")


def test_the_token_opens_the_answer_from_another_address() -> None:
    desk = a_desk()
    question, token = desk.ask("K")
    serve(desk, "mine")
    assert desk.read(at=ELSEWHERE, request_id=question.id, token=token) == told("mine")


def test_a_token_that_was_shown_once_is_needed_from_then_on() -> None:
    desk = a_desk()
    question, token = desk.ask("K")
    assert desk.read(request_id=question.id, token=token) is None
    serve(desk, "mine")
    assert desk.read() is None
    with pytest.raises(Refused):
        desk.read(request_id=question.id)
    assert desk.read(request_id=question.id, token=token) == told("mine")


def test_a_bound_question_is_never_given_without_its_token() -> None:
    desk = a_desk()
    question, token = desk.ask("K", bound=True)
    serve(desk, "mine")
    assert desk.read() is None
    assert desk.read(request_id=question.id, token=token) == told("mine")


def test_a_stranger_cannot_fill_somebody_s_mailbox() -> None:
    desk = a_desk()
    for _ in range(MAX_PER_MAILBOX):
        desk.ask("K", at=ELSEWHERE)
    with pytest.raises(Refused, match="are open already"):
        desk.ask("K", at=ELSEWHERE)
    desk.ask("K")


def test_one_address_never_takes_all_the_memory() -> None:
    desk = a_desk(max_held=64 * QUESTION_COST)
    refused: list[Refused] = []
    for number in range(64):
        try:
            desk.ask("K", f"C{number}", at=ELSEWHERE)
        except Refused as error:
            refused.append(error)
    assert {error.code for error in refused} == {"mailbox_full"}
    assert all(error.retry_after for error in refused)
    assert len(refused) == 17, "three quarters of the memory, as fair shares are reckoned"
    desk.ask("K")


def test_a_question_that_is_refused_leaves_nothing_behind() -> None:
    desk = a_desk()
    for number in range(64):
        desk.ask("K", f"C{number}")
    held = desk.room.mailboxes.shares.held
    with pytest.raises(Refused) as refused:
        desk.ask("K", "one too many")
    assert refused.value.code == "queue_full"
    assert desk.room.mailboxes.shares.held == held
    assert len(desk.room.mailboxes) == 64


def test_an_unread_answer_goes_after_a_while_and_gives_its_memory_back() -> None:
    desk = a_desk()
    desk.ask("K")
    serve(desk, "x" * 65536)
    assert desk.room.mailboxes.shares.held > 65536
    desk.tick(CLASSIC_TIMING.kept)
    assert desk.room.mailboxes.shares.held == 0
    assert desk.room.mailboxes.left[Left.UNREAD] == 1


def test_a_question_that_nobody_asks_after_is_given_up() -> None:
    desk = a_desk()
    desk.ask("K")
    for _ in range(int(CLASSIC_TIMING.unasked / 2)):
        desk.tick(2)
        desk.poll("K", at=NODE, batch=2)
    assert desk.room.mailboxes.left[Left.ABANDONED] == 1
    assert len(desk.room.mailboxes) == 0


def test_a_question_whose_node_vanished_is_told_to_have_failed() -> None:
    desk = a_desk()
    desk.ask("K")
    desk.tick(31)
    with pytest.raises(Refused) as refused:
        desk.read()
    assert refused.value.code == "node_lost"
    assert desk.read() is None, "it is told once"


def test_a_cancelled_question_leaves_the_node_s_queue() -> None:
    desk = a_desk()
    question, token = desk.ask("K")
    desk.room.cancel(question.owner, question.id, token)
    assert not desk.poll("K", at=NODE).jobs
    assert desk.room.mailboxes.left[Left.CANCELLED] == 1


def test_a_relay_that_goes_away_tells_those_whose_questions_nobody_will_fetch() -> None:
    desk = a_desk()
    desk.ask("K", "taken")
    desk.poll("K", at=NODE, batch=2)
    desk.ask("K", "queued")
    desk.broker.drain()
    desk.room.drain(desk.now)
    with pytest.raises(Refused) as refused:
        desk.read("queued")
    assert refused.value.code == "relay_stopped"
    with pytest.raises(Refused):
        desk.poll("K", at=NODE, batch=2)
    with pytest.raises(Refused):
        desk.ask("K")
    assert desk.room.busy(desk.now)
    assert desk.answer("in time", "taken", at=NODE)
    assert desk.read("taken") == told("in time")
    assert not desk.room.busy(desk.now)

"""Nodes that poll: whose key, whose job, who is there."""

from __future__ import annotations

from collections import Counter

import pytest

from tokenplace.errors import Refused
from tokenplace.relay.classic.bounds import CLASSIC_TIMING, MAX_POLLING_PER_ADDRESS
from tokenplace.relay.classic.polling import Caller
from unit.relay.classic.classic_desk import ELSEWHERE, HOME, ClassicDesk, a_classic_card, a_key, told

ASKER = "203.0.113.5"
MINE = "a token of one's own"


def code(refused: pytest.ExceptionInfo[Refused]) -> str:
    return refused.value.code


def test_a_key_belongs_to_the_address_that_registered_it() -> None:
    desk = ClassicDesk()
    desk.poll("K")
    desk.ask("K", at=ASKER)
    with pytest.raises(Refused) as refused:
        desk.poll("K", at=ELSEWHERE)
    assert code(refused) == "key_held"
    assert desk.poll("K").jobs, "and nothing was drained"


def test_a_key_stays_its_holder_s_for_an_hour_after_it_fell_silent() -> None:
    desk = ClassicDesk()
    desk.poll("K")
    desk.tick(600)
    assert desk.room.next_server(desk.now) is None
    with pytest.raises(Refused):
        desk.poll("K", at=ELSEWHERE)
    desk.poll("K")
    desk.tick(CLASSIC_TIMING.former + 60)
    desk.poll("K", at=ELSEWHERE)


def test_a_holder_that_shows_its_token_may_move_and_is_asked_for_it_ever_after() -> None:
    desk = ClassicDesk()
    node = desk.poll("K").node
    token = node.tell()
    assert token
    assert node.tell() is None, "who shares its address shall not learn it"
    desk.poll("K", at=ELSEWHERE, token=token)
    for at in (HOME, ELSEWHERE):
        with pytest.raises(Refused):
            desk.poll("K", at=at)
        with pytest.raises(Refused):
            desk.poll("K", at=at, token="guess")
    desk.poll("K", at=ASKER, token=token)


def test_a_wrong_token_is_refused_even_at_the_holder_s_address() -> None:
    desk = ClassicDesk()
    desk.poll("K")
    with pytest.raises(Refused):
        desk.poll("K", token="guess")


def test_a_holder_may_bring_its_token_along_and_registers_again_with_it() -> None:
    desk = ClassicDesk()
    assert desk.poll("K", token=MINE).node.tell() is None
    with pytest.raises(Refused):
        desk.poll("K")
    desk.poll("K", at=ELSEWHERE, token=MINE)
    desk.tick(CLASSIC_TIMING.former + 60)
    desk.poll("K", token=MINE)
    with pytest.raises(Refused):
        desk.poll("K")


def test_a_flood_of_fake_nodes_gets_no_more_than_one_address_s_share() -> None:
    desk = ClassicDesk()
    desk.poll("honest")
    refused: list[str] = []
    for number in range(50):
        try:
            desk.poll(f"fake {number}", at=ELSEWHERE)
        except Refused as error:
            refused.append(error.code)
    assert refused == ["too_many_nodes"] * (50 - MAX_POLLING_PER_ADDRESS)
    given = Counter(server.key for _ in range(1000) if (server := desk.room.next_server(desk.now)))
    assert given["honest"] > 400


def test_servers_of_different_addresses_and_modern_ones_are_drawn_alike() -> None:
    desk = ClassicDesk()
    desk.poll("K1")
    desk.poll("K2", at=ELSEWHERE)
    modern = desk.modern(1, a_key("modern"))
    desk.node(2)
    given = Counter((server.key, server.node) for _ in range(3000) if (server := desk.room.next_server(desk.now)))
    assert set(given) == {("K1", None), ("K2", None), (a_key("modern"), modern.id)}, "a node without a key is not asked"
    assert all(800 < number < 1200 for number in given.values())


def test_a_silent_node_vanishes() -> None:
    desk = ClassicDesk()
    desk.poll("K")
    desk.tick(29)
    assert desk.room.next_server(desk.now)
    desk.tick(2)
    assert desk.room.next_server(desk.now) is None
    with pytest.raises(Refused):
        desk.ask("K", at=ASKER)


def test_a_node_at_work_is_silent_and_still_there() -> None:
    desk = ClassicDesk()
    desk.poll("K")
    desk.ask("K", at=ASKER)
    assert desk.poll("K").jobs
    for _ in range(45):
        desk.tick(2)
        assert desk.read(at=ASKER) is None
    assert desk.room.next_server(desk.now) is None, "new clients go elsewhere"
    assert desk.answer("a long story")
    assert desk.read(at=ASKER) == told("a long story")


def test_only_who_took_the_question_may_answer_it() -> None:
    desk = ClassicDesk()
    desk.poll("K")
    desk.ask("K", at=ASKER)
    with pytest.raises(Refused) as refused:
        desk.answer("before it was taken")
    assert code(refused) == "not_your_job"
    (job,) = desk.poll("K").jobs
    desk.poll("other", at=ELSEWHERE)
    for request_id in (None, job.id):
        with pytest.raises(Refused) as refused:
            desk.answer("forged", at=ELSEWHERE, request_id=request_id)
        assert code(refused) == "not_your_job"
    desk.answer("true")
    with pytest.raises(Refused):
        desk.answer("replayed")
    assert desk.read(at=ASKER) == told("true")


def test_a_bound_node_s_answer_needs_its_token() -> None:
    desk = ClassicDesk()
    token = MINE
    desk.poll("K", token=token)
    desk.ask("K", at=ASKER)
    (job,) = desk.poll("K", token=token).jobs
    for shown in (None, "guess"):
        with pytest.raises(Refused):
            desk.answer("forged", request_id=job.id, token=shown)
    desk.answer("true", at=ELSEWHERE, request_id=job.id, token=token)
    assert desk.read(at=ASKER) == told("true")


def test_a_node_that_comes_again_without_the_answer_gets_the_question_once_more() -> None:
    desk = ClassicDesk()
    desk.poll("K")
    desk.ask("K", at=ASKER)
    (first,) = desk.poll("K").jobs
    (again,) = desk.poll("K").jobs
    assert first is again
    assert not desk.poll("K").jobs
    with pytest.raises(Refused) as refused:
        desk.read(at=ASKER)
    assert code(refused) == "node_lost"


def test_a_holder_has_one_question_of_a_client_at_a_time() -> None:
    desk = ClassicDesk()
    desk.poll("K", batch=8)
    for client in ("C", "C", "D"):
        desk.ask("K", client, at=ASKER)
    jobs = desk.poll("K", batch=8).jobs
    assert [job.body["client_public_key"] for job in jobs] == ["C", "D"]
    assert desk.poll("K", batch=8).jobs == ()
    desk.answer("first of C", "C")
    assert len(desk.poll("K", batch=8).jobs) == 1
    desk.answer("of D", "D")
    desk.answer("second of C", "C")
    assert [desk.read("C", at=ASKER), desk.read("C", at=ASKER)] == [told("first of C"), told("second of C")]


def test_a_node_that_names_its_jobs_gets_all_at_once() -> None:
    desk = ClassicDesk()
    token = MINE
    desk.poll("K", token=token)
    for _ in range(3):
        desk.ask("K", at=ASKER)
    jobs = desk.poll("K", token=token, batch=8).jobs
    assert len(jobs) == 3
    for words, job in zip(("three", "two", "one"), reversed(jobs), strict=True):
        desk.answer(words, request_id=job.id, token=token)
    assert [desk.read(at=ASKER)["chat_history"] for _ in range(3)] == ["one", "two", "three"]


def test_a_node_is_told_to_come_at_once_while_work_waits() -> None:
    desk = ClassicDesk()
    assert desk.poll("K").ping == CLASSIC_TIMING.ping_least
    desk.ask("K", "C", at=ASKER)
    desk.ask("K", "D", at=ASKER)
    assert desk.poll("K").ping == 0
    desk.answer("first", "C")
    assert desk.poll("K").ping == CLASSIC_TIMING.ping_least


def test_the_more_nodes_poll_the_less_often_they_are_asked_to() -> None:
    desk = ClassicDesk()
    for number in range(500):
        ping = desk.poll(f"K{number}", at=f"address {number}").ping
    assert ping == 5


def test_a_node_that_never_answers_loses_the_question() -> None:
    desk = ClassicDesk()
    desk.poll("K", batch=2)
    desk.ask("K", at=ASKER)
    desk.poll("K", batch=2)
    for _ in range(int(CLASSIC_TIMING.lease) - 1):
        desk.tick(1)
        desk.poll("K", batch=2)
        assert desk.read(at=ASKER) is None
    desk.tick(2)
    with pytest.raises(Refused) as refused:
        desk.read(at=ASKER)
    assert code(refused) == "no_progress"


def test_a_stream_of_a_polling_node_arrives_in_order_and_ends_once() -> None:
    desk = ClassicDesk()
    desk.poll("K")
    desk.ask("K", at=ASKER, stream=True)
    (job,) = desk.poll("K").jobs
    node = desk.room
    for number in range(3):
        node.piece(Caller(HOME, b""), job.session, b"%d" % number, None, final=False, now=desk.now)
    assert desk.read_stream(at=ASKER) == ([0, 1, 2], False)
    with pytest.raises(Refused) as refused:
        node.piece(Caller(ELSEWHERE, b""), job.session, b"9", None, final=False, now=desk.now)
    assert code(refused) == "not_your_job"
    node.piece(Caller(HOME, b""), job.session, b"3", None, final=True, now=desk.now)
    with pytest.raises(Refused) as refused:
        node.piece(Caller(HOME, b""), job.session, b"4", None, final=False, now=desk.now)
    assert code(refused) == "stream_closed"
    assert desk.read_stream(at=ASKER) == ([3], True)
    assert desk.read_stream(at=ASKER) == ([], False)
    assert desk.room.mailboxes.shares.held == 0


def test_a_node_that_knows_no_streams_answers_a_stream_whole() -> None:
    desk = ClassicDesk()
    desk.poll("K")
    desk.ask("K", at=ASKER, stream=True)
    desk.poll("K")
    desk.answer("all of it")
    assert desk.read_stream(at=ASKER) == ([told("all of it")], True)


def test_no_poll_takes_over_a_key_that_stands_on_a_card() -> None:
    desk = ClassicDesk()
    desk.modern(1, a_key("modern"))
    with pytest.raises(Refused) as refused:
        desk.poll(a_key("modern"))
    assert code(refused) == "key_held"


def test_no_card_takes_over_a_key_that_somebody_holds() -> None:
    desk = ClassicDesk()
    desk.poll(a_key("polled"))
    first = desk.modern(1, a_key("modern"))
    desk.tick(1, awake=(first,))
    thief = desk.modern(2, a_key("polled"))
    copycat = desk.modern(3, a_key("modern"))
    desk.tick(1, awake=(first, thief, copycat))
    desk.poll(a_key("polled"))
    given = {server.node for _ in range(200) if (server := desk.room.next_server(desk.now))}
    assert given == {None, first.id}
    desk.ask(a_key("modern"))
    assert first.offers()
    assert not copycat.offers()


def test_a_rotated_key_still_leads_to_its_node() -> None:
    desk = ClassicDesk()
    node = desk.modern(1, a_key("old"))
    desk.tick(1, awake=(node,))
    node.report(4, 4, a_classic_card(1, a_key("new"), sequence=2))
    desk.tick(1, awake=(node,))
    server = desk.room.next_server(desk.now)
    assert server is not None
    assert server.key == a_key("new")
    desk.ask(a_key("old"))
    assert node.offers()


def test_a_key_may_be_shown_as_pem_text_too() -> None:
    desk = ClassicDesk()
    node = desk.modern(1, a_key("modern"))
    desk.ask("-----BEGIN PUBLIC KEY-----\nmodern\n-----END PUBLIC KEY-----")
    assert node.offers()


def test_a_node_has_no_more_in_hand_than_it_could_work_on() -> None:
    desk = ClassicDesk()
    token = MINE
    desk.poll("K", token=token)
    for number in range(60):
        desk.ask("K", f"C{number}", at=ASKER)
    first = desk.poll("K", token=token, batch=1000).jobs
    for number in range(20):
        desk.ask("K", f"D{number}", at=ASKER)
    more = desk.poll("K", token=token, batch=1000)
    assert (len(first), len(more.jobs), more.ping) == (60, 4, CLASSIC_TIMING.ping_least)
    desk.answer("done", "C0", request_id=first[0].id, token=token)
    assert len(desk.poll("K", token=token, batch=1000).jobs) == 1

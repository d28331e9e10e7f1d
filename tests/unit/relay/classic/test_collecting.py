"""A modern node's answer on its way into a classic client's mailbox."""

from __future__ import annotations

import pytest

from tokenplace.errors import Refused, WireError
from tokenplace.relay.classic.bounds import STREAM_WINDOW
from tokenplace.wire.classic import ClassicRequest, Door
from tokenplace.wire.ids import Sid
from tokenplace.wire.limits import CREDIT_WINDOW
from tokenplace.wire.messages import Outcome, Reason
from tokenplace.wire.stream import Record, RecordKind
from unit.relay.classic.classic_desk import ClassicDesk, a_key, records, told
from unit.relay.desk import Puppet

KEY = a_key("modern")


def asked(*, stream: bool = False, **options: int) -> tuple[ClassicDesk, Puppet, Sid]:
    """A question that a modern node has accepted."""
    desk = ClassicDesk(**options)
    node = desk.modern(1, KEY)
    desk.ask(KEY, stream=stream)
    (offer,) = node.offers()
    request = ClassicRequest.parse(offer.sealed)
    assert (request.door, request.stream, request.key_id) == (Door.RELAY, stream, f"{1:016x}")
    assert request.body["client_public_key"] == "C"
    node.accept(offer.sid)
    return desk, node, offer.sid


def send(node: Puppet, sid: Sid, parts: list[bytes], first: int = 0) -> int:
    for number, part in enumerate(parts, start=first):
        node.send(sid, number, part)
    return first + len(parts)


def test_a_whole_answer_is_given_when_its_end_is_here_and_not_before() -> None:
    desk, node, sid = asked()
    sent = send(node, sid, records({"status": 200}, {"message": told("words")}))
    assert desk.read() is None
    sent = send(node, sid, records({"end": True, "usage": None}), sent)
    node.finish(sid, sent)
    assert desk.read() == told("words")
    assert desk.room.mailboxes.shares.held == 0
    assert desk.broker.counts.outcomes == {"done": 1}


def test_an_answer_larger_than_a_window_comes_through() -> None:
    desk, node, sid = asked()
    parts = records({"status": 200}, {"message": told("x" * 300_000)}, {"end": True})
    for number, part in enumerate(parts):
        node.send(sid, number, part)
        node.hear()
    assert desk.read() == told("x" * 300_000)


def test_pieces_of_a_stream_come_as_they_arrive() -> None:
    desk, node, sid = asked(stream=True)
    sent = send(node, sid, records({"status": 200}, {"message": {"n": 1}}, {"message": {"n": 2}}))
    assert desk.read_stream() == ([{"n": 1}, {"n": 2}], False)
    assert desk.read_stream() == ([], False)
    send(node, sid, records({"message": {"n": 3}}, {"end": True}), sent)
    assert desk.read_stream() == ([{"n": 3}], True)


def test_a_node_is_held_back_by_a_client_that_does_not_read() -> None:
    desk, node, sid = asked(stream=True)
    part = records({"message": {"words": "x" * 15_000}})[0]
    granted, sent = CREDIT_WINDOW, 0
    while (sent + 1) * len(part) <= granted:
        node.send(sid, sent, part)
        sent += 1
        granted = max([granted, *node.granted()])
    assert sent * len(part) < STREAM_WINDOW + 2 * CREDIT_WINDOW
    held = desk.room.mailboxes.shares.held
    assert held < STREAM_WINDOW + 2 * CREDIT_WINDOW
    chunks, _ = desk.read_stream()
    assert len(chunks) * 15_000 > STREAM_WINDOW - CREDIT_WINDOW
    assert node.granted(), "and goes on when it reads"


def test_a_node_is_held_back_while_the_memory_is_full_and_goes_on_afterwards() -> None:
    desk, node, sid = asked(max_held=40_000)
    parts = records({"message": told("x" * 60_000)}, {"end": True})
    send(node, sid, parts)
    assert desk.read() is None
    assert desk.room.mailboxes.shares.held <= 40_000


def test_a_cancelled_question_stops_the_node() -> None:
    desk, node, _ = asked()
    (question,) = desk.room.mailboxes
    desk.room.cancel(question.owner, question.id, None)
    assert [type(event).__name__ for event in node.hear()] == ["Cancelled"]
    assert desk.broker.counts.outcomes == {"cancelled": 1}


def test_a_superseded_question_stops_the_node_too() -> None:
    desk, node, _ = asked()
    assert desk.read() is None
    desk.ask(KEY)
    assert [type(event).__name__ for event in node.hear()] == ["Cancelled", "Offered"]


def failure(desk: ClassicDesk) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        desk.read()
    assert desk.read() is None
    return refused.value.code, refused.value.message


def test_the_node_s_own_refusal_is_told() -> None:
    desk, node, sid = asked()
    error = {"message": "It does not open.", "type": "encryption_error", "param": None, "code": "encryption_error"}
    sent = send(node, sid, records({"status": 400}, {"error": error}))
    node.finish(sid, sent)
    assert failure(desk) == ("encryption_error", "It does not open.")
    assert desk.room.mailboxes.faults == {"node_error": 1}, "no label of a node's own making"
    assert desk.broker.counts.outcomes == {"done": 1}


def test_an_answer_that_stops_before_its_end_is_told_to_have_failed() -> None:
    desk, node, sid = asked()
    sent = send(node, sid, records({"status": 200}, {"message": told("half")}))
    node.finish(sid, sent)
    assert failure(desk)[0] == "truncated"
    assert desk.room.mailboxes.faults == {"truncated": 1}


def test_a_stream_that_breaks_gives_what_came_and_then_the_failure_and_no_final() -> None:
    desk, node, sid = asked(stream=True)
    send(node, sid, records({"status": 200}, {"message": {"n": 1}}))
    node.break_link()
    desk.tick(20)
    assert desk.read_stream() == ([{"n": 1}], False)
    with pytest.raises(Refused) as refused:
        desk.read_stream()
    assert refused.value.code == Outcome.NODE_LOST


def test_a_node_that_refuses_the_job_is_quoted() -> None:
    desk = ClassicDesk()
    node = desk.modern(1, KEY)
    desk.ask(KEY)
    node.reject(node.an_offer(), "key_unknown")
    assert failure(desk)[0] == "key_unknown"


@pytest.mark.parametrize(
    "garbage",
    [b"not json\n", b"[1,2,3]\n", b'{"end":true}\n', b"[" * 5000 + b"\n"],
    ids=["text", "list", "no-message", "deep"],
)
def test_an_answer_that_cannot_be_read_is_told_to_be_bad(garbage: bytes) -> None:
    desk, node, sid = asked()
    node.send(sid, 0, Record(RecordKind.CLASSIC, garbage).pack())
    assert failure(desk)[0] == "bad_answer"


def test_what_follows_the_end_is_passed_over() -> None:
    desk, node, sid = asked()
    sent = send(node, sid, records({"message": told("one")}, {"end": True}, {"message": told("two")}, {"error": {}}))
    assert desk.read() == told("one")
    node.send(sid, sent, b"\0\0\0\0\x83")
    node.finish(sid, sent + 1, Reason(Outcome.DONE))
    assert desk.broker.counts.outcomes == {"done": 1}


def test_the_questions_of_a_flood_do_not_close_the_door_for_others() -> None:
    desk = ClassicDesk()
    node = desk.modern(1, KEY, slots=1)
    refused: set[str] = set()
    for number in range(100):
        try:
            desk.ask(KEY, f"C{number}", at="203.0.113.66")
        except Refused as error:
            refused.add(error.code)
    assert refused == {"queue_full"}
    desk.ask(KEY, "light")
    assert node.offers()


def test_a_stream_is_not_read_where_whole_answers_are() -> None:
    desk, node, sid = asked(stream=True)
    (question,) = desk.room.mailboxes
    assert desk.read(request_id=question.id) is None
    send(node, sid, records({"message": {"n": 1}}))
    with pytest.raises(WireError, match="/stream/retrieve"):
        desk.read(request_id=question.id)
    assert desk.read_stream(request_id=question.id) == ([{"n": 1}], False)

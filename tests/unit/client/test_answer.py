from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tokenplace.client.answer import RETRIES, Answer, News, Phase
from tokenplace.client.door import Directory
from tokenplace.client.relays import Relays
from tokenplace.client.trust import Trust
from tokenplace.errors import (
    ApiError,
    BadRecord,
    Draining,
    JobFailed,
    JobUnknown,
    NodeUnknown,
    NoNode,
    QueueFull,
    Refused,
    RelayUnreachable,
    SealError,
    TokenPlaceError,
    UntrustedCard,
)
from tokenplace.openai.calls import Abort, Call
from tokenplace.sealing.exchange import RecordSealer
from tokenplace.wire.ids import ModelId
from tokenplace.wire.messages import Listing, Outcome
from tokenplace.wire.stream import Record, RecordKind
from unit.client.scripted import (
    BROKEN,
    MODEL,
    NOW_MS,
    WORDS,
    RefusedByNode,
    ScriptedDoor,
    ScriptedNode,
    a_node,
    forged,
    hanging,
    notice,
    told,
    upto,
    whole,
)
from unit.relay.fake_time import now, run

CALL = Call("/v1/chat/completions", b'{"messages": []}')
ALL = b"".join(WORDS)
OUTCOMES = json.loads((Path(__file__).parents[3] / "spec/vectors/outcomes.json").read_text("utf-8"))["outcomes"]
"""What a client does after each ending, in every language."""


def codes(does: str, *, wanted: bool = True) -> list[str]:
    return [each["code"] for each in OUTCOMES if each[does] is wanted]


@asynccontextmanager
async def asking(
    *doors: ScriptedDoor, trust: Trust | None = None, model: ModelId = MODEL, news: list[News] | None = None
) -> AsyncIterator[Answer]:
    """As `Client.ask`, under fake time."""
    answer = Answer(
        relays=Relays(doors, now),
        trust=trust or Trust(),
        call=CALL,
        model=model,
        on_news=None if news is None else news.append,
        wall_ms=lambda: NOW_MS,
        clock=now,
    )
    try:
        await answer.begin()
        yield answer
    finally:
        await answer.close()


def read(*doors: ScriptedDoor, trust: Trust | None = None, news: list[News] | None = None) -> bytes:
    async def main() -> bytes:
        async with asking(*doors, trust=trust, news=news) as answer:
            return await answer.read()

    return run(main)


def two_nodes() -> list[ScriptedNode]:
    return [a_node(1), a_node(2)]


def test_a_whole_answer_is_opened_and_told_who_gave_it() -> None:
    async def main() -> None:
        node = a_node(1)
        door, trust = ScriptedDoor("relay", nodes=[node]), Trust()
        async with asking(door, trust=trust) as answer:
            assert (answer.head.status, answer.head.content_type) == (200, "text/plain")
            assert [chunk async for chunk in answer.chunks()] == list(WORDS)
            assert answer.usage == {"completion_tokens": 3}
            assert (answer.node, answer.standing, answer.relay) == (node.id, "new", "relay")
        assert node.calls == [CALL]
        assert door.cancelled == []
        async with asking(door, trust=trust) as answer:
            assert answer.standing == "known"
            await answer.read()

    run(main)


def test_nothing_of_the_call_is_readable_on_the_way() -> None:
    door = ScriptedDoor("relay", nodes=[a_node(1)])
    read(door)
    assert b"messages" not in door.sealed[0]
    assert b"completions" not in door.sealed[0]


# -- trying again ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", codes("another_node"))
def test_a_request_of_which_nothing_was_seen_goes_to_another_node(code: str) -> None:
    nodes = two_nodes()
    door = ScriptedDoor("relay", [RefusedByNode(code), whole], nodes=nodes)
    news: list[News] = []
    assert read(door, news=news) == ALL
    assert door.sent_to == [nodes[0].id, nodes[1].id]
    assert door.sealed[0] != door.sealed[1]
    assert News(Phase.RETRYING) in news


def test_three_attempts_are_all() -> None:
    door = ScriptedDoor("relay", [RefusedByNode("node_lost")], nodes=two_nodes())
    with pytest.raises(JobFailed) as failed:
        read(door)
    assert failed.value.outcome == Outcome.NODE_LOST
    assert len(door.calls) == 1 + RETRIES


def test_when_there_is_only_one_node_it_is_asked_again() -> None:
    node = a_node(1)
    door = ScriptedDoor("relay", [RefusedByNode("busy"), whole], nodes=[node])
    assert read(door) == ALL
    assert door.sent_to == [node.id, node.id]


@pytest.mark.parametrize("code", sorted(set(codes("same_node_once"))))
def test_a_node_that_would_only_repeat_its_ending_is_not_asked_again(code: str) -> None:
    nodes = two_nodes()
    door = ScriptedDoor("relay", [RefusedByNode(code)], nodes=nodes)
    with pytest.raises(JobFailed) as failed:
        read(door)
    assert (failed.value.code, failed.value.message) == (code, "A sentence.")
    assert sorted(door.sent_to) == sorted(node.id for node in nodes)
    assert door.cancelled == []


def test_when_the_relay_lists_nobody_any_more_the_first_reason_is_told_at_once() -> None:
    """Its breaker took the node off the list."""

    def unlist(news: News) -> None:
        if news.phase is Phase.RETRYING:
            door.directory = Directory([], {})

    async def main() -> float:
        began = now()
        answer = Answer(Relays([door], now), Trust(), CALL, MODEL, 5, unlist, lambda: NOW_MS, now)
        with pytest.raises(JobFailed) as failed:
            await answer.begin()
        assert failed.value.code == "engine_failed"
        await answer.close()
        return now() - began

    door = ScriptedDoor("relay", [RefusedByNode("engine_failed")], nodes=[a_node(1)])
    assert run(main) < 1
    assert door.cancelled == []


def test_of_nodes_that_failed_one_that_may_do_better_now_is_asked_again() -> None:
    nodes = two_nodes()
    door = ScriptedDoor("relay", [RefusedByNode("engine_failed"), RefusedByNode("busy"), whole], nodes=nodes)
    assert read(door) == ALL
    assert door.sent_to == [nodes[0].id, nodes[1].id, nodes[1].id]


@pytest.mark.parametrize("code", codes("another_relay"))
def test_an_ending_at_one_relay_may_not_be_the_end_at_another(code: str) -> None:
    node = a_node(1)
    jobs: dict[object, object] = {}
    first = ScriptedDoor("a", [upto(2, told(code))], nodes=[node], jobs=jobs)  # type: ignore[arg-type]
    second = ScriptedDoor("b", nodes=[node], jobs=jobs)  # type: ignore[arg-type]
    assert read(first, second) == ALL
    assert second.calls == [("resume", 2)]


@pytest.mark.parametrize("code", codes("another_relay", wanted=False))
def test_an_ending_of_the_answer_itself_is_the_end_at_every_relay(code: str) -> None:
    node = a_node(1)
    first = ScriptedDoor("a", [upto(2, told(code))], nodes=[node])
    second = ScriptedDoor("b", nodes=[node])
    with pytest.raises(JobFailed) as failed:
        read(first, second)
    assert (failed.value.code, second.calls) == (code, [])


@pytest.mark.parametrize("code", codes("another_node", wanted=False))
def test_an_ending_that_another_node_would_not_better_is_told_at_once(code: str) -> None:
    door = ScriptedDoor("relay", [RefusedByNode(code)], nodes=two_nodes())
    with pytest.raises(JobFailed) as failed:
        read(door)
    assert (failed.value.code, failed.value.message) == (code, "A sentence.")
    assert len(door.calls) == 1
    assert door.cancelled == []


def test_once_a_record_was_seen_the_request_is_never_sent_again() -> None:
    for count in (1, 2, 4):
        door = ScriptedDoor("relay", [upto(count, told(Outcome.NODE_LOST))], nodes=two_nodes())
        with pytest.raises(JobFailed) as failed:
            read(door)
        assert failed.value.outcome == Outcome.NODE_LOST
        assert door.calls == [("submit", 0)]


def test_a_full_queue_sends_the_request_to_another_node() -> None:
    nodes = two_nodes()
    door = ScriptedDoor("relay", [QueueFull(retry_after=3), whole], nodes=nodes)
    assert read(door) == ALL
    assert door.sent_to == [nodes[0].id, nodes[1].id]


@pytest.mark.parametrize("count", [1, 2])
def test_when_every_queue_is_full_that_is_said_and_no_queue_is_asked_twice(count: int) -> None:
    nodes = two_nodes()[:count]
    door = ScriptedDoor("relay", [QueueFull(retry_after=3)], nodes=nodes)
    with pytest.raises(QueueFull) as refused:
        read(door)
    assert refused.value.retry_after == 3
    assert len(door.calls) == count


def test_what_the_relay_refuses_is_not_tried_again() -> None:
    refusal = Refused(code="too_large", status=413)
    door = ScriptedDoor("relay", [refusal], nodes=two_nodes())
    with pytest.raises(Refused) as refused:
        read(door)
    assert refused.value is refusal
    assert len(door.calls) == 1


@pytest.mark.parametrize("refusal", [NodeUnknown(), Draining(), BROKEN])
def test_a_node_or_relay_that_just_went_is_no_reason_to_give_up(refusal: TokenPlaceError) -> None:
    nodes = two_nodes()
    first, second = ScriptedDoor("a", [refusal, whole], nodes=nodes), ScriptedDoor("b", nodes=nodes)
    assert read(first, second) == ALL


def test_a_rotated_key_leads_to_the_fresh_card() -> None:
    node = a_node(1)
    stale = Directory([node.listing()], {MODEL: 1})
    node.renew()
    door = ScriptedDoor("relay", [RefusedByNode("key_unknown"), whole], nodes=[node])
    door.directory = stale

    def refresh(news: News) -> None:
        if news.phase is Phase.RETRYING:
            door.directory = None

    async def main() -> bytes:
        answer = Answer(Relays([door], now), Trust(), CALL, MODEL, 5, refresh, lambda: NOW_MS, now)
        await answer.begin()
        content = await answer.read()
        await answer.close()
        return content

    assert run(main) == ALL
    assert len(door.calls) == 2


# -- going on where it broke -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", range(5))
@pytest.mark.parametrize("then", [None, BROKEN])
def test_a_broken_stream_goes_on_at_the_next_record(seen: int, then: Exception | None) -> None:
    door = ScriptedDoor("relay", [upto(seen, then), whole], nodes=[a_node(1)])
    news: list[News] = []
    assert read(door, news=news) == ALL
    assert door.calls == [("submit", 0), ("resume", seen)]
    assert News(Phase.RETURNING) in news


def test_it_may_break_as_often_as_there_are_records() -> None:
    door = ScriptedDoor("relay", [upto(count, BROKEN) for count in range(1, 5)] + [whole], nodes=[a_node(1)])
    assert read(door) == ALL
    assert [call[1] for call in door.calls] == [0, 1, 2, 3, 4]


def test_it_goes_on_through_another_relay() -> None:
    node = a_node(1)
    jobs: dict[object, object] = {}
    first = ScriptedDoor("a", [upto(2, BROKEN), BROKEN], nodes=[node], jobs=jobs)  # type: ignore[arg-type]
    second = ScriptedDoor("b", nodes=[node], jobs=jobs)  # type: ignore[arg-type]

    async def main() -> None:
        async with asking(first, second) as answer:
            assert await answer.read() == ALL
            assert answer.relay == "b"

    run(main)
    assert first.calls == [("submit", 0)]
    assert second.calls == [("resume", 2)]


def test_a_break_inside_the_first_piece_begins_again_at_its_nonce() -> None:
    async def only_the_nonce(pieces: list[list[Record]], start: int) -> AsyncIterator[Record]:
        yield pieces[0][0]

    door = ScriptedDoor("relay", [only_the_nonce, whole], nodes=[a_node(1)])  # type: ignore[list-item]
    assert read(door) == ALL
    assert door.calls == [("submit", 0), ("resume", 0)]


def test_a_relay_that_stays_away_is_given_up_after_a_while_by_name() -> None:
    async def main() -> float:
        began = now()
        with pytest.raises(JobFailed) as failed:
            async with asking(door) as answer:
                await answer.read()
        assert failed.value.outcome == Outcome.NODE_LOST
        return now() - began

    door = ScriptedDoor("relay", [upto(2, BROKEN), BROKEN], nodes=[a_node(1)])
    assert 20 <= run(main) < 30
    assert len(door.calls) < 30, "the pauses grow"


def given_up_after(door: ScriptedDoor) -> float:
    """The seconds after which an answer that broke off is given up."""

    async def main() -> float:
        began = now()
        with pytest.raises(JobFailed):
            async with asking(door) as answer:
                await answer.read()
        return now() - began

    return run(main)


def test_a_node_that_no_relay_knows_any_more_is_given_up_sooner() -> None:
    door = ScriptedDoor("relay", [upto(2, BROKEN), JobUnknown()], nodes=[a_node(1)])
    assert 5 <= given_up_after(door) < 10


def test_a_lost_job_of_which_nothing_was_seen_is_sent_anew() -> None:
    door = ScriptedDoor("relay", [upto(0, BROKEN), JobUnknown(), whole], nodes=two_nodes())
    assert read(door) == ALL
    assert [call[0] for call in door.calls] == ["submit", "resume", "submit"]


def test_who_comes_back_too_often_waits_as_long_as_it_is_told() -> None:
    async def main() -> tuple[bytes, float]:
        began = now()
        async with asking(door) as answer:
            return await answer.read(), now() - began

    door = ScriptedDoor("relay", [upto(2, BROKEN), QueueFull(retry_after=7), whole], nodes=[a_node(1)])
    content, took = run(main)
    assert content == ALL
    assert 7 <= took < 9
    assert door.calls[1:] == [("resume", 2), ("resume", 2)]


def test_who_would_have_to_wait_longer_than_its_answer_is_kept_hears_it_at_once() -> None:
    door = ScriptedDoor("relay", [upto(2, BROKEN), QueueFull(retry_after=60), whole], nodes=[a_node(1)])
    assert given_up_after(door) < 5


def test_a_relay_that_is_going_away_is_come_back_to_as_long_as_one_that_is_gone() -> None:
    door = ScriptedDoor("relay", [upto(2, BROKEN), Draining()], nodes=[a_node(1)])
    assert 20 <= given_up_after(door) < 30


def test_a_relay_that_is_going_away_is_left_for_one_that_has_the_node() -> None:
    node = a_node(1)
    jobs: dict[object, object] = {}
    first = ScriptedDoor("a", [upto(2, BROKEN)], nodes=[node], jobs=jobs)  # type: ignore[arg-type]
    second = ScriptedDoor("b", [Draining()], nodes=[node], jobs=jobs)  # type: ignore[arg-type]
    third = ScriptedDoor("c", nodes=[node], jobs=jobs)  # type: ignore[arg-type]
    assert read(first, second, third) == ALL
    assert third.calls == [("resume", 2)]


def test_progress_starts_the_patience_again() -> None:
    acts = [upto(count, BROKEN) if again == 0 else BROKEN for count in range(1, 5) for again in range(5)]
    door = ScriptedDoor("relay", [*acts, whole], nodes=[a_node(1)])
    assert read(door) == ALL


# -- lies --------------------------------------------------------------------------------------------------------------


def flipped(record: Record) -> Record:
    return Record(record.kind, bytes([record.payload[0] ^ 1]) + record.payload[1:])


FORGERIES: dict[str, Callable[[list[Record]], Sequence[Record]]] = {
    "altered": lambda all_: [*all_[:2], flipped(all_[2]), *all_[3:]],
    "left out": lambda all_: [*all_[:2], *all_[3:]],
    "repeated": lambda all_: [*all_[:3], all_[2], *all_[3:]],
    "swapped": lambda all_: [*all_[:2], all_[3], all_[2], *all_[4:]],
    "another nonce": lambda all_: [flipped(all_[0]), *all_[1:]],
    "relabelled": lambda all_: [*all_[:2], Record(RecordKind.FINAL, all_[2].payload)],
    "empty": lambda all_: [*all_[:2], Record(RecordKind.DATA, b"")],
    "no head": lambda all_: [all_[0], *all_[2:]],
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_is_a_broken_seal_and_stops_the_node(name: str) -> None:
    door = ScriptedDoor("relay", [forged(FORGERIES[name])], nodes=two_nodes())
    with pytest.raises(SealError):
        read(door)
    assert door.calls == [("submit", 0)]
    assert len(door.cancelled) == 1


def test_an_answer_of_another_question_does_not_open() -> None:
    node = a_node(1)
    door = ScriptedDoor("relay", nodes=[node])
    read(door)
    other = node.answer(door.sealed[0])
    door = ScriptedDoor("relay", [forged(lambda _: [record for piece in other for record in piece])], nodes=[node])
    with pytest.raises(BadRecord):
        read(door)


def test_an_answer_without_its_nonce_is_refused() -> None:
    door = ScriptedDoor("relay", [forged(lambda all_: all_[1:])], nodes=[a_node(1)])
    with pytest.raises(TokenPlaceError, match="nonce"):
        read(door)


def test_a_second_nonce_later_on_changes_nothing() -> None:
    def twice(all_: list[Record]) -> list[Record]:
        return [*all_[:3], Record(RecordKind.NONCE, bytes(32)), *all_[3:]]

    assert read(ScriptedDoor("relay", [forged(twice)], nodes=[a_node(1)])) == ALL


def test_an_ending_without_a_seal_is_never_taken_for_the_end() -> None:
    for count in range(1, 5):
        door = ScriptedDoor("relay", [upto(count, told("done"))], nodes=[a_node(1)])
        with pytest.raises(JobFailed):
            read(door)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b"\xff",
        b'{"position": "first"}',
        b'{"state": [], "position": 1e99}',
        b"[" * 60_000,
    ],
)
def test_chatter_that_cannot_be_read_is_no_news(payload: bytes) -> None:
    def with_chatter(all_: list[Record]) -> list[Record]:
        return [notice(payload), *all_[:2], notice(payload), *all_[2:]]

    news: list[News] = []
    assert read(ScriptedDoor("relay", [forged(with_chatter)], nodes=[a_node(1)]), news=news) == ALL
    assert all(item.position is None for item in news)


def test_a_place_in_the_queue_is_news() -> None:
    said = notice(b'{"state": "queued", "position": 3}'), notice(b'{"state": "running"}')
    news: list[News] = []
    read(ScriptedDoor("relay", [forged(lambda all_: [*said, *all_])], nodes=[a_node(1)]), news=news)
    assert news == [News(Phase.QUEUED, 3), News(Phase.RUNNING)]


@pytest.mark.parametrize("payload", [b"", b"[]", b"5", b"{}", b'{"code": 5}', b'{"code": "a b"}', b"[" * 60_000])
def test_an_outcome_that_cannot_be_read_is_a_lost_node(payload: bytes) -> None:
    door = ScriptedDoor("relay", [upto(2, Record(RecordKind.OUTCOME, payload))], nodes=[a_node(1)])
    with pytest.raises(JobFailed) as failed:
        read(door)
    assert failed.value.outcome == Outcome.NODE_LOST


# -- errors under the seal ---------------------------------------------------------------------------------------------


@dataclass(eq=False)
class AbortingNode(ScriptedNode):
    """Ends with an error under the seal."""

    def end(self, sealer: RecordSealer) -> Record:
        return sealer.seal(RecordKind.ABORT, Abort("It broke.", "server_error", "engine_crashed", {"t": 1}).pack())


def test_an_error_under_the_seal_comes_after_what_was_sent() -> None:
    async def main() -> None:
        node = AbortingNode(a_node(1).identity, a_node(1).keys)
        door = ScriptedDoor("relay", nodes=[node])
        chunks: list[bytes] = []
        async with asking(door) as answer:
            body = answer.chunks()
            chunks += [await anext(body) for _ in WORDS]
            with pytest.raises(ApiError) as error:
                await anext(body)
            assert (error.value.code, error.value.status, answer.usage) == ("engine_crashed", 502, {"t": 1})
        assert chunks == list(WORDS)
        assert (door.calls, door.cancelled) == ([("submit", 0)], [])

    run(main)


# -- leaving -----------------------------------------------------------------------------------------------------------


def test_leaving_before_the_end_cancels_at_the_node() -> None:
    async def main() -> None:
        door = ScriptedDoor("relay", [hanging(2)], nodes=[a_node(1)])
        async with asking(door) as answer:
            chunks = answer.chunks()
            assert await anext(chunks) == WORDS[0]
        assert len(door.cancelled) == 1

    run(main)


def test_being_cancelled_while_waiting_cancels_at_the_node() -> None:
    async def main() -> None:
        door = ScriptedDoor("relay", [hanging(0)], nodes=[a_node(1)])
        asked = asking(door)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked.__aenter__(), 60)
        assert len(door.cancelled) == 1

    run(main)


def test_a_relay_that_cannot_be_told_does_not_hold_us_up() -> None:
    class Deaf(ScriptedDoor):
        async def cancel(self, node: object, job: object) -> None:
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        door = Deaf("relay", [hanging(2)], nodes=[a_node(1)])
        async with asking(door):
            began = now()
        assert now() - began == pytest.approx(2.0)

    run(main)


# -- choosing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "spread"), [(1, [2, 2, 2, 2]), (4, [0, 0, 4, 4])])
def test_those_who_ask_together_are_spread_over_the_nodes_with_free_slots(slots: int, spread: list[int]) -> None:
    """One directory serves everybody for two seconds, and a job in a queue never changes its node."""

    async def one(relays: Relays) -> None:
        answer = Answer(relays, Trust(), CALL, MODEL, wall_ms=lambda: NOW_MS, clock=now)
        try:
            await answer.begin()
            await answer.read()
        finally:
            await answer.close()

    async def main() -> None:
        relays = Relays([door], now)
        await asyncio.gather(*(one(relays) for _ in range(8)))

    nodes = [a_node(name) for name in range(1, 5)]
    listings = [Listing(node.card(), slots, slots, 0) for node in nodes]
    door = ScriptedDoor("relay", nodes=nodes, directory=Directory(listings, {MODEL: 4}))
    run(main)
    sent = Counter(door.sent_to)
    assert sorted(sent[node.id] for node in nodes) == spread


def test_nobody_there_is_said_with_what_to_do() -> None:
    with pytest.raises(NoNode, match="tokenplace node"):
        read(ScriptedDoor("relay", directory=Directory([], {})))


def test_a_model_nobody_serves_is_said_with_what_is_served() -> None:
    with pytest.raises(NoNode, match="Served now: other"):
        read(ScriptedDoor("relay", directory=Directory([], {ModelId("other"): 1})))


def test_no_relay_at_all_is_a_relay_error() -> None:
    with pytest.raises(RelayUnreachable):
        read(ScriptedDoor("relay", directory=BROKEN))


def test_a_card_that_is_not_trusted_is_passed_over_for_one_that_is() -> None:
    mine, other = a_node(1), a_node(2)
    door = ScriptedDoor("relay", nodes=[other, mine])
    assert read(door, trust=Trust([mine.id])) == ALL
    assert door.sent_to == [mine.id]


def test_without_a_card_to_trust_nothing_is_sent() -> None:
    door = ScriptedDoor("relay", nodes=[a_node(2)])
    with pytest.raises(UntrustedCard):
        read(door, trust=Trust([a_node(1).id]))
    assert door.calls == []


def test_a_card_without_a_living_key_is_passed_over() -> None:
    empty, good = a_node(1), a_node(2)
    body = empty.card().body
    keyless = empty.identity.sign_card(type(body)(body.identity, 1, NOW_MS, (), body.models))
    listing = type(empty.listing())(keyless, 1, 1, 0)
    door = ScriptedDoor("relay", nodes=[good], directory=Directory([listing, good.listing()], {MODEL: 2}))
    assert read(door) == ALL
    assert door.sent_to == [good.id]


def test_a_pinned_node_behind_the_second_relay_is_found() -> None:
    mine = a_node(1)
    first, second = ScriptedDoor("a", nodes=[a_node(2)]), ScriptedDoor("b", nodes=[mine])
    assert read(first, second, trust=Trust([mine.id])) == ALL

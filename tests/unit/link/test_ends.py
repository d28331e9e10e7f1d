from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import LinkError
from tokenplace.link.ends import CHALLENGE_BYTES, NodeEnd, Phase, RelayEnd
from tokenplace.link.events import (
    Accepted,
    Cancelled,
    Challenged,
    Drained,
    Ended,
    Granted,
    Introduced,
    NodeEvent,
    Offered,
    Piece,
    Ponged,
    Progressed,
    Rejected,
    RelayEvent,
    Reported,
    Rewound,
    Welcomed,
)
from tokenplace.wire.card import Card, CardBody
from tokenplace.wire.frames import MORE, FrameKind, pack_control, pack_frame, split_frames
from tokenplace.wire.ids import Sid, job_id_of
from tokenplace.wire.limits import CREDIT_WINDOW, JOB_CHUNK, MAX_FRAME_PAYLOAD, MAX_FRAMES, MAX_MESSAGE, MAX_REQUEST
from tokenplace.wire.messages import Ending, Hello, Outcome, Reason, Status

few = settings(max_examples=150, deadline=None, database=None)
NONCE = bytes(CHALLENGE_BYTES)
JOB = job_id_of(b"j" * 16)
BUSY = Reason("busy", "Later.")
DONE = Reason(Outcome.DONE)
BODY = CardBody(identity=b"i" * 32, sequence=1, issued_ms=0, keys=(), models=())
HELLO = Hello(Card(body=BODY, signed=BODY.pack(), signature=bytes(64)), bytes(64), "relay.example", 2)
S1, S2 = Sid(1), Sid(2)


class Pair:
    """Both ends and the wire between them."""

    def __init__(self) -> None:
        self.relay, self.node = RelayEnd(), NodeEnd()

    def down(self) -> list[NodeEvent]:
        """What the relay said, as the node hears it."""
        events: list[NodeEvent] = []
        while message := self.relay.take():
            events += self.node.receive(message, 1.0)
        return events

    def up(self) -> list[RelayEvent]:
        events: list[RelayEvent] = []
        while message := self.node.take():
            events += self.relay.receive(message, 1.0)
        return events

    def say(self, kind: FrameKind, payload: bytes = b"", *, sid: int = 0, seq: int = 0) -> list[RelayEvent]:
        """A frame to the relay that the node's end would not send."""
        return self.relay.receive(pack_frame(kind, payload, sid=sid, seq=seq), 1.0)


def introduced() -> Pair:
    pair = Pair()
    pair.relay.challenge(NONCE)
    assert pair.down() == [Challenged(NONCE)]
    pair.node.hello(HELLO)
    assert pair.up() == [Introduced(HELLO)]
    return pair


def live() -> Pair:
    pair = introduced()
    pair.relay.welcome("relay")
    assert pair.down() == [Welcomed("relay")]
    return pair


def offered() -> Pair:
    pair = live()
    assert pair.relay.offer(b"sealed") == S1
    assert pair.down() == [Offered(S1, b"sealed")]
    return pair


def flowing() -> Pair:
    pair = offered()
    pair.node.accept(S1, 0)
    assert pair.up() == [Accepted(S1, 0)]
    return pair


def sent_one() -> Pair:
    pair = flowing()
    pair.node.data(S1, 0, b"piece")
    assert pair.up() == [Piece(S1, 0, b"piece")]
    return pair


def gone() -> Pair:
    pair = sent_one()
    pair.node.end(S1, 1, DONE, 2)
    assert pair.up() == [Ended(S1, 1, Ending(DONE, 2, 1))]
    return pair


def cancelled() -> Pair:
    pair = sent_one()
    pair.relay.cancel(S1)
    return pair


def challenged() -> Pair:
    pair = Pair()
    pair.relay.challenge(NONCE)
    return pair


# -- what may follow what, at the relay's end --------------------------------------------------------------------------

ENDING = pack_control(Ending(DONE, 1, 0).fields())
FROM_NODE: dict[str, bytes] = {
    "HELLO": pack_frame(FrameKind.HELLO, pack_control(HELLO.fields())),
    "ACCEPT": pack_frame(FrameKind.ACCEPT, sid=1),
    "REJECT": pack_frame(FrameKind.REJECT, pack_control(BUSY.fields()), sid=1),
    "DATA 0": pack_frame(FrameKind.DATA, b"piece", sid=1),
    "DATA 1": pack_frame(FrameKind.DATA, b"piece", sid=1, seq=1),
    "END 0": pack_frame(FrameKind.END, ENDING, sid=1),
    "END 1": pack_frame(FrameKind.END, ENDING, sid=1, seq=1),
    "PROGRESS": pack_frame(FrameKind.PROGRESS, sid=1),
    "STATUS": pack_frame(FrameKind.STATUS, pack_control(Status(1, 1).fields())),
    "DRAIN": pack_frame(FrameKind.DRAIN),
    "PING": pack_frame(FrameKind.PING, bytes(8)),
    **{
        kind.name: pack_frame(kind, b"{}", sid=1)
        for kind in (
            FrameKind.CHALLENGE,
            FrameKind.WELCOME,
            FrameKind.JOB,
            FrameKind.REWIND,
            FrameKind.CREDIT,
            FrameKind.CANCEL,
        )
    },
}
ALWAYS = {"STATUS", "DRAIN", "PING"}
AT_RELAY: list[tuple[Callable[[], Pair], set[str], set[str]]] = [
    (challenged, {"HELLO"}, set()),
    (introduced, set(), set()),
    (live, ALWAYS, set()),
    (offered, ALWAYS | {"ACCEPT", "REJECT"}, set()),
    (flowing, ALWAYS | {"DATA 0", "END 0", "PROGRESS"}, set()),
    (sent_one, ALWAYS | {"DATA 1", "END 1", "PROGRESS"}, set()),
    (gone, ALWAYS, {"ACCEPT", "REJECT", "END 0", "END 1", "PROGRESS"}),
    (cancelled, ALWAYS, {"ACCEPT", "REJECT", "DATA 0", "DATA 1", "END 0", "END 1", "PROGRESS"}),
]
"""State, what is heard there, what is stale there; everything else closes the link."""


@pytest.mark.parametrize("frame", FROM_NODE)
@pytest.mark.parametrize(("state", "heard", "stale"), AT_RELAY, ids=lambda value: getattr(value, "__name__", ""))
def test_the_relay_hears_what_fits_drops_what_is_stale_and_closes_on_the_rest(
    state: Callable[[], Pair], heard: set[str], stale: set[str], frame: str
) -> None:
    relay = state().relay
    if frame in heard:
        assert len(relay.receive(FROM_NODE[frame], 1.0)) == (frame != "PING")
    elif frame in stale:
        assert relay.receive(FROM_NODE[frame], 1.0) == []
    else:
        with pytest.raises(LinkError):
            relay.receive(FROM_NODE[frame], 1.0)


# -- talk without end --------------------------------------------------------------------------------------------------


def much(frame: bytes, times: int) -> bytes:
    return frame * times


def drop(relay: RelayEnd) -> None:
    while relay.take():
        pass


def say_often(pair: Pair, message: bytes, times: int = 100) -> None:
    for _ in range(times):
        pair.relay.receive(message, 1.0)


@pytest.mark.parametrize("name", ["PING", "STATUS", "PROGRESS", "DRAIN"])
def test_a_node_that_talks_without_end_is_closed(name: str) -> None:
    with pytest.raises(LinkError, match="Too much talk"):
        say_often(flowing(), much(FROM_NODE[name], MAX_FRAMES))


def test_a_node_that_tells_what_is_free_after_every_answer_is_not() -> None:
    relay = flowing().relay
    for tenth in range(600):
        relay.receive(much(FROM_NODE["STATUS"], 50) + much(FROM_NODE["PROGRESS"], 2) + FROM_NODE["PING"], tenth / 10)
        drop(relay)


def test_stale_signs_of_work_have_their_end_too() -> None:
    with pytest.raises(LinkError, match="Too much talk"):
        say_often(cancelled(), much(FROM_NODE["ACCEPT"], MAX_FRAMES))


def test_a_fat_card_counts_for_what_it_costs() -> None:
    status = pack_control({**Status(1, 1).fields(), "more": "x" * 60_000})
    with pytest.raises(LinkError, match="Too much talk"):
        say_often(flowing(), pack_frame(FrameKind.STATUS, status), times=12)


def test_records_on_their_way_when_their_stream_was_cancelled_are_dropped_and_no_more_than_those() -> None:
    pair = flowing()
    pair.relay.cancel(S1)
    record = bytes(16 * 1024)
    for number in range(4):
        assert pair.relay.receive(pack_frame(FrameKind.DATA, record, sid=1, seq=number), 1.0) == []
    with pytest.raises(LinkError, match="credit"):
        pair.relay.receive(pack_frame(FrameKind.DATA, b"more", sid=1, seq=4), 1.0)


def test_a_record_that_carries_nothing_closes_the_link() -> None:
    with pytest.raises(LinkError, match="carries nothing"):
        flowing().relay.receive(pack_frame(FrameKind.DATA, sid=1), 1.0)


def test_a_message_has_so_many_frames_and_no_more() -> None:
    pair = live()
    assert len(pair.relay.receive(much(FROM_NODE["STATUS"], MAX_FRAMES), 1.0)) == MAX_FRAMES
    with pytest.raises(LinkError, match="frames"):
        pair.relay.receive(much(FROM_NODE["STATUS"], MAX_FRAMES + 1), 2.0)
    for _ in range(MAX_FRAMES + 1):
        pair.node.status(Status(1, 1))
    assert [len(split_frames(pair.node.take())) for _ in range(2)] == [MAX_FRAMES, 1]


def test_a_peer_that_does_not_read_is_noticed() -> None:
    relay = flowing().relay
    for total in range(1, 10_000):
        relay.grant(S1, 64 * 1024 + total)
    seen = [relay.clogged]
    relay.ping(1.0)
    relay.ping(2.0)
    seen.append(relay.clogged)
    drop(relay)
    seen.append(relay.clogged)
    assert seen == [False, True, False]


# -- … and at the node's ---------------------------------------------------------------------------------------------

FROM_RELAY: dict[str, bytes] = {
    "CHALLENGE": pack_frame(FrameKind.CHALLENGE, NONCE),
    "WELCOME": pack_frame(FrameKind.WELCOME, b"{}"),
    "JOB 1": pack_frame(FrameKind.JOB, b"sealed", sid=1),
    "JOB 2": pack_frame(FrameKind.JOB, b"sealed", sid=2),
    "JOB 3": pack_frame(FrameKind.JOB, b"sealed", sid=3),
    "REWIND 1": pack_frame(FrameKind.REWIND, bytes(20), sid=1),
    "REWIND 2": pack_frame(FrameKind.REWIND, bytes(20), sid=2),
    "CREDIT 1": pack_frame(FrameKind.CREDIT, sid=1, seq=CREDIT_WINDOW * 2),
    "CREDIT 2": pack_frame(FrameKind.CREDIT, sid=2, seq=CREDIT_WINDOW * 2),
    "CREDIT 0": pack_frame(FrameKind.CREDIT, sid=0, seq=CREDIT_WINDOW * 2),
    "CANCEL 1": pack_frame(FrameKind.CANCEL, sid=1),
    "CANCEL 2": pack_frame(FrameKind.CANCEL, sid=2),
    "DRAIN": pack_frame(FrameKind.DRAIN),
    "PING": pack_frame(FrameKind.PING, bytes(8)),
    **{
        kind.name: pack_frame(kind, b"{}", sid=1)
        for kind in (
            FrameKind.HELLO,
            FrameKind.ACCEPT,
            FrameKind.REJECT,
            FrameKind.DATA,
            FrameKind.END,
            FrameKind.PROGRESS,
            FrameKind.STATUS,
        )
    },
}
AT_NODE: list[tuple[Callable[[], Pair], set[str], set[str]]] = [
    (Pair, {"CHALLENGE"}, set()),
    (introduced, {"WELCOME"}, set()),
    (live, {"JOB 1", "REWIND 1", "DRAIN", "PING"}, set()),
    (offered, {"JOB 2", "REWIND 2", "CREDIT 1", "CANCEL 1", "DRAIN", "PING"}, set()),
    (flowing, {"JOB 2", "REWIND 2", "CREDIT 1", "CANCEL 1", "DRAIN", "PING"}, set()),
    (gone, {"JOB 2", "REWIND 2", "CANCEL 1", "DRAIN", "PING"}, {"CREDIT 1"}),
]


@pytest.mark.parametrize("frame", FROM_RELAY)
@pytest.mark.parametrize(("state", "heard", "stale"), AT_NODE, ids=lambda value: getattr(value, "__name__", ""))
def test_the_node_hears_what_fits_drops_what_is_stale_and_closes_on_the_rest(
    state: Callable[[], Pair], heard: set[str], stale: set[str], frame: str
) -> None:
    node = state().node
    if frame in heard:
        assert len(node.receive(FROM_RELAY[frame], 1.0)) == (frame != "PING")
    elif frame in stale:
        assert node.receive(FROM_RELAY[frame], 1.0) == []
    else:
        with pytest.raises(LinkError):
            node.receive(FROM_RELAY[frame], 1.0)


# -- records and credit ------------------------------------------------------------------------------------------------


def test_a_whole_job_passes() -> None:
    pair = sent_one()
    pair.node.progress(S1)
    assert pair.up() == [Progressed(S1)]
    pair.relay.grant(S1, 100_000)
    assert pair.down() == [Granted(S1, 100_000)]
    pair.node.data(S1, 1, b"!")
    pair.node.end(S1, 2, DONE, 1)
    assert pair.up() == [Piece(S1, 1, b"!"), Ended(S1, 2, Ending(DONE, 1, 1))]


def test_a_record_beyond_the_credit_closes_the_link() -> None:
    pair = flowing()
    assert pair.say(FrameKind.DATA, bytes(CREDIT_WINDOW), sid=1)
    with pytest.raises(LinkError, match="65537 bytes where 65536 were granted"):
        pair.say(FrameKind.DATA, b"!", sid=1, seq=1)


def test_granted_credit_may_be_used_to_the_last_byte() -> None:
    pair = flowing()
    pair.relay.grant(S1, CREDIT_WINDOW + 10)
    pair.say(FrameKind.DATA, bytes(CREDIT_WINDOW), sid=1)
    pair.say(FrameKind.DATA, bytes(10), sid=1, seq=1)
    with pytest.raises(LinkError):
        pair.say(FrameKind.DATA, b"!", sid=1, seq=2)


def test_credit_never_shrinks() -> None:
    pair = flowing()
    pair.relay.grant(S1, 10)
    assert pair.down() == []
    pair.say(FrameKind.DATA, bytes(CREDIT_WINDOW), sid=1)


@pytest.mark.parametrize("number", [0, 2, 2**32 - 1])
def test_a_record_out_of_number_closes_the_link(number: int) -> None:
    with pytest.raises(LinkError, match="where 1 is next"):
        sent_one().say(FrameKind.DATA, b"piece", sid=1, seq=number)


@pytest.mark.parametrize("count", [0, 2])
def test_an_end_that_miscounts_closes_the_link(count: int) -> None:
    with pytest.raises(LinkError, match=f"claims {count}"):
        sent_one().say(FrameKind.END, ENDING, sid=1, seq=count)


def test_a_rewound_stream_goes_on_at_its_record_with_its_credit() -> None:
    pair = live()
    assert pair.relay.rewind(JOB, 5, 10) == S1
    assert pair.down() == [Rewound(S1, JOB, 5, 10)]
    with pytest.raises(LinkError, match="does not fit"):
        pair.say(FrameKind.ACCEPT, sid=1, seq=4)
    pair.node.accept(S1, 5)
    pair.node.data(S1, 5, bytes(10))
    assert pair.up() == [Accepted(S1, 5), Piece(S1, 5, bytes(10))]
    with pytest.raises(LinkError, match="granted"):
        pair.say(FrameKind.DATA, b"!", sid=1, seq=6)


@pytest.mark.parametrize("sid", [0, 2, 2**32 - 1])
@pytest.mark.parametrize("kind", [FrameKind.DATA, FrameKind.ACCEPT, FrameKind.END, FrameKind.PROGRESS])
def test_a_frame_for_an_offer_never_made_closes_the_link(kind: FrameKind, sid: int) -> None:
    with pytest.raises(LinkError, match="never made"):
        flowing().say(kind, ENDING, sid=sid)


def test_nobody_may_know_of_an_offer_never_made() -> None:
    with pytest.raises(LinkError, match="never made"):
        flowing().say(FrameKind.STATUS, pack_control(Status(1, 1).fields()), sid=2)
    with pytest.raises(LinkError, match="never made"):
        flowing().say(FrameKind.END, pack_control(Ending(DONE, 1, 2).fields()), sid=1)


# -- cancelling and stale frames ---------------------------------------------------------------------------------------


def test_what_crosses_a_cancel_is_dropped_at_both_ends() -> None:
    pair = flowing()
    pair.relay.cancel(S1)
    pair.node.data(S1, 0, b"late")
    pair.node.end(S1, 1, DONE, 1)
    assert pair.up() == []
    assert pair.down() == [Cancelled(S1)]
    pair.node.data(S1, 1, b"later")
    pair.node.end(S1, 2, DONE, 1)
    assert pair.up() == []


def test_a_cancel_is_said_once() -> None:
    pair = flowing()
    pair.relay.cancel(S1)
    pair.relay.cancel(S1)
    assert pair.down() == [Cancelled(S1)]


def test_a_forgotten_offer_is_stale_without_a_word() -> None:
    pair = flowing()
    pair.relay.forget(S1)
    assert pair.down() == []
    pair.node.data(S1, 0, b"late")
    assert pair.up() == []


def test_a_number_is_never_used_again() -> None:
    pair = flowing()
    pair.relay.cancel(S1)
    assert pair.relay.offer(b"other") == S2
    assert pair.down() == [Cancelled(S1), Offered(S2, b"other")]


def test_a_rejected_offer_can_neither_flow_nor_end() -> None:
    pair = offered()
    pair.node.reject(S1, BUSY)
    pair.node.accept(S1, 0)
    pair.node.data(S1, 0, b"no")
    pair.node.end(S1, 1, DONE, 1)
    assert pair.up() == [Rejected(S1, BUSY)]


# -- requests in parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, JOB_CHUNK, JOB_CHUNK + 1, 3 * JOB_CHUNK, MAX_REQUEST])
def test_a_request_of_any_size_arrives_whole(size: int) -> None:
    pair = live()
    sealed = bytes(size - 1) + b"!"
    pair.relay.offer(sealed)
    assert pair.down() == [Offered(S1, sealed)]


def part(sid: int, number: int, payload: bytes = b"part", *, more: bool = True) -> bytes:
    return pack_frame(FrameKind.JOB, payload, sid=sid, seq=number, flags=MORE if more else 0)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([part(1, 1)], "out of order"),
        ([part(1, 0), part(1, 2)], "out of order"),
        ([part(1, 0), part(1, 0)], "out of order"),
        ([part(1, 0), part(2, 0)], "mixed"),
        ([part(2, 0)], "where 1 is next"),
        ([part(1, 0, more=False), part(1, 0)], "where 2 is next"),
        ([part(1, 0, b"")], "carries nothing"),
        ([part(1, n, bytes(MAX_FRAME_PAYLOAD)) for n in range(MAX_REQUEST // MAX_FRAME_PAYLOAD + 1)], "at most"),
    ],
)
def test_parts_that_are_mixed_out_of_order_or_endless_close_the_link(parts: list[bytes], why: str) -> None:
    node = live().node
    for frame in parts[:-1]:
        node.receive(frame, 1.0)
    with pytest.raises(LinkError, match=why):
        node.receive(parts[-1], 1.0)


def test_a_request_cancelled_between_its_parts_is_forgotten() -> None:
    node = live().node
    node.receive(part(1, 0), 1.0)
    node.receive(pack_frame(FrameKind.CANCEL, sid=1), 1.0)
    assert node.receive(part(2, 0, b"whole", more=False), 1.0) == [Offered(S2, b"whole")]


@pytest.mark.parametrize("payload", [b"", bytes(19), bytes(21)])
def test_a_rewind_has_its_size(payload: bytes) -> None:
    with pytest.raises(LinkError, match="20 bytes"):
        live().node.receive(pack_frame(FrameKind.REWIND, payload, sid=1), 1.0)


# -- the link itself ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonce", [b"", bytes(31), bytes(33)])
def test_a_challenge_has_its_size(nonce: bytes) -> None:
    with pytest.raises(LinkError):
        NodeEnd().receive(pack_frame(FrameKind.CHALLENGE, nonce), 1.0)


def test_no_offer_before_the_welcome() -> None:
    with pytest.raises(LinkError, match="before the welcome"):
        introduced().relay.offer(b"sealed")
    with pytest.raises(LinkError, match="before the welcome"):
        introduced().relay.rewind(JOB, 0, 0)


def test_a_ping_is_answered_and_timed() -> None:
    pair = live()
    pair.relay.ping(10.0)
    assert pair.down() == []
    assert pair.relay.receive(pair.node.take(), 10.25) == [Ponged(0.25)]


@pytest.mark.parametrize("sent", [float("inf"), float("-inf"), float("nan"), -1e308, 9.0])
def test_an_answer_to_a_ping_never_sent_is_not_timed(sent: float) -> None:
    pair = live()
    pair.relay.ping(10.0)
    assert pair.say(FrameKind.PONG, struct.pack(">d", sent)) == []


def test_a_pong_has_its_size_and_a_ping_is_not_an_amplifier() -> None:
    pair = live()
    with pytest.raises(LinkError):
        pair.say(FrameKind.PONG, b"short")
    pair.say(FrameKind.PING, bytes(MAX_FRAME_PAYLOAD))
    assert len(pair.relay.take()) < 100


def test_draining_is_heard_at_both_ends() -> None:
    pair = live()
    pair.relay.drain()
    pair.node.drain()
    assert (pair.down(), pair.up()) == ([Drained()], [Drained()])


def test_a_status_names_the_last_offer_that_was_seen() -> None:
    pair = offered()
    pair.node.status(Status(2, 1))
    assert pair.up() == [Reported(Status(2, 1), S1)]


def test_a_message_is_bounded_in_both_directions() -> None:
    pair = live()
    for _ in range(5):
        pair.relay.offer(bytes(MAX_MESSAGE))
    sizes = []
    while message := pair.relay.take():
        sizes.append(len(message))
    assert max(sizes) <= MAX_MESSAGE
    assert len(sizes) < 10, "frames share messages"
    with pytest.raises(LinkError, match="at most"):
        pair.node.receive(bytes(MAX_MESSAGE + 1), 1.0)


def test_the_owner_is_called_once_until_it_took_everything() -> None:
    calls: list[int] = []
    end = RelayEnd(lambda: calls.append(1))
    end.challenge(NONCE)
    end.ping(1.0)
    assert len(calls) == 1
    end.take()
    assert end.take() == b""
    end.ping(2.0)
    assert len(calls) == 2


def test_every_message_is_a_sign_of_life() -> None:
    pair = live()
    pair.say(FrameKind.DRAIN)
    assert pair.relay.last_heard == 1.0


# -- anything at all ---------------------------------------------------------------------------------------------------

frames_ = st.builds(
    pack_frame,
    st.sampled_from(FrameKind),
    st.binary(max_size=40)
    | st.sampled_from([ENDING, NONCE, bytes(20), pack_control(BUSY.fields()), pack_control(HELLO.fields())])
    | st.builds(lambda slots: pack_control({"slots": slots, "free": slots}), st.integers() | st.text()),
    sid=st.integers(0, 4),
    seq=st.integers(0, 3) | st.integers(0, 2**32 - 1),
    flags=st.integers(0, 3),
)
messages_ = st.lists(frames_, max_size=6).map(b"".join) | st.binary(max_size=60)


@few
@given(st.sampled_from([challenged, introduced, live, offered, flowing, gone]), st.lists(messages_, max_size=6))
def test_no_bytes_raise_anything_but_a_link_error_at_the_relay(state: Callable[[], Pair], said: list[bytes]) -> None:
    relay = state().relay
    try:
        for message in said:
            for event in relay.receive(message, 1.0):
                if isinstance(event, Introduced):
                    relay.welcome("relay")
    except LinkError:
        return


@few
@given(st.sampled_from([Pair, introduced, live, offered, flowing, gone]), st.lists(messages_, max_size=6))
def test_no_bytes_raise_anything_but_a_link_error_at_the_node(state: Callable[[], Pair], said: list[bytes]) -> None:
    node = state().node
    try:
        for message in said:
            for event in node.receive(message, 1.0):
                if isinstance(event, Challenged):
                    node.hello(HELLO)
    except LinkError:
        return
    assert node.phase in Phase

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.frames import (
    HEADER_BYTES,
    Frame,
    FrameKind,
    lone_record,
    pack_control,
    pack_frame,
    parse_control,
    split_frames,
)
from tokenplace.wire.limits import MAX_CONTROL, MAX_FRAME_PAYLOAD

few = settings(max_examples=150, deadline=None, database=None)
frames_ = st.builds(
    Frame,
    st.sampled_from(FrameKind),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=30),
)
ONE = pack_frame(FrameKind.DATA, b"piece", sid=7, seq=9)


def packed(frames: list[Frame]) -> bytes:
    return b"".join(
        pack_frame(frame.kind, frame.payload, sid=frame.sid, seq=frame.seq, flags=frame.flags) for frame in frames
    )


@few
@given(st.lists(frames_, max_size=6))
def test_frames_survive_the_wire(frames: list[Frame]) -> None:
    assert split_frames(packed(frames)) == frames


@few
@given(st.lists(frames_, min_size=1, max_size=4), st.data())
def test_a_message_cut_inside_a_frame_is_refused(frames: list[Frame], data: st.DataObject) -> None:
    message = packed(frames)
    edges = {len(packed(frames[:count])) for count in range(len(frames) + 1)}
    cut = data.draw(st.integers(0, len(message)))
    if cut in edges:
        assert split_frames(message[:cut]) == frames[: sorted(edges).index(cut)]
    else:
        with pytest.raises(WireError, match="ends inside a frame"):
            split_frames(message[:cut])


@few
@given(st.binary(max_size=80))
def test_any_bytes_are_frames_or_a_wire_error(message: bytes) -> None:
    try:
        frames = split_frames(message)
    except WireError:
        return
    assert packed(frames) == message


@pytest.mark.parametrize("kind", [0, 17, 255])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    with pytest.raises(WireError, match=f"kind {kind}"):
        split_frames(bytes([kind]) + ONE[1:])


def test_a_frame_is_bounded_in_both_directions() -> None:
    whole = pack_frame(FrameKind.DATA, bytes(MAX_FRAME_PAYLOAD))
    assert len(split_frames(whole)[0].payload) == MAX_FRAME_PAYLOAD
    with pytest.raises(TooLarge):
        pack_frame(FrameKind.DATA, bytes(MAX_FRAME_PAYLOAD + 1))
    claim = ONE[: HEADER_BYTES - 4] + (MAX_FRAME_PAYLOAD + 1).to_bytes(4, "big")
    with pytest.raises(TooLarge):
        split_frames(claim)


def test_an_empty_message_has_no_frames() -> None:
    assert split_frames(b"") == []


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"1", b"null", b"\xff", b'"text"', b"[" * 50_000, b'{"a":' * 9_000]
)
def test_a_control_payload_is_a_json_object(payload: bytes) -> None:
    with pytest.raises(WireError):
        parse_control(payload)


def test_a_control_payload_is_bounded() -> None:
    with pytest.raises(TooLarge):
        parse_control(pack_control({"a": "x" * MAX_CONTROL}))


@few
@given(st.lists(frames_, max_size=2).map(packed) | st.binary(max_size=60))
def test_a_record_alone_is_what_the_frames_would_say_and_nothing_else_is_one(message: bytes) -> None:
    try:
        frames = split_frames(message)
    except WireError:
        frames = []
    alone = len(frames) == 1 and frames[0].kind is FrameKind.DATA
    assert lone_record(message) == ((frames[0].sid, frames[0].seq, frames[0].payload) if alone else None)


def test_a_record_beyond_the_bound_is_none() -> None:
    header = pack_frame(FrameKind.DATA, bytes(MAX_FRAME_PAYLOAD), sid=1)[:10]
    assert lone_record(header + (MAX_FRAME_PAYLOAD + 1).to_bytes(4, "big") + bytes(MAX_FRAME_PAYLOAD + 1)) is None

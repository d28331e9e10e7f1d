from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import TooLarge
from tokenplace.openai.events import MAX_EVENT, Event, EventParser, data_event, done_event, error_event

STREAMS: list[tuple[bytes, list[Event]]] = [
    (b"data: a\n\n", [Event(b"a")]),
    (b"data:a\n\n", [Event(b"a")]),
    (b"data:  a\n\n", [Event(b" a")]),
    (b"data: a\r\n\r\n", [Event(b"a")]),
    (b"data: a\r\r", [Event(b"a")]),
    (b"data: a\r\rdata: b\r\r", [Event(b"a"), Event(b"b")]),
    (b"data: a\n\r\ndata: b\r\n\n", [Event(b"a"), Event(b"b")]),
    (b"data: a\ndata: b\n\n", [Event(b"a\nb")]),
    (b"data\n\n", [Event(b"")]),
    (b"data: a: b\n\n", [Event(b"a: b")]),
    (b": a comment\ndata: a\n\n", [Event(b"a")]),
    (b":\n\n", []),
    (b"\n\n\n", []),
    (b"event: error\ndata: a\n\n", [Event(b"a", b"error")]),
    (b"event: ping\n\ndata: a\n\n", [Event(b"a")]),
    (b"id: 5\nretry: 10\nnonsense\ndata: a\n\n", [Event(b"a")]),
    (b"\xef\xbb\xbfdata: a\n\n", [Event(b"a")]),
    ("data: Grüße 🦄\n\n".encode(), [Event("Grüße 🦄".encode())]),
    ("data: \u2028\x0b\x0c\x1c\x85\n\n".encode(), [Event("\u2028\x0b\x0c\x1c\x85".encode())]),
    (b"data: a\n\ndata: cut off", [Event(b"a")]),
    (b"data: a\n\ndata: cut off\n", [Event(b"a")]),
    (b"", []),
]


def parse(*pieces: bytes) -> list[Event]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(("stream", "events"), STREAMS, ids=lambda value: repr(value)[:50])
def test_a_stream_of_events_is_read(stream: bytes, events: list[Event]) -> None:
    assert parse(stream) == events


@pytest.mark.parametrize(("stream", "events"), STREAMS, ids=lambda value: repr(value)[:50])
def test_a_stream_cut_after_every_byte_is_read_the_same(stream: bytes, events: list[Event]) -> None:
    assert parse(*(stream[at : at + 1] for at in range(len(stream)))) == events


@settings(max_examples=200, deadline=None, database=None)
@given(data=st.data(), which=st.lists(st.sampled_from([s for s, _ in STREAMS if s.endswith(b"\n\n")]), max_size=5))
def test_any_cut_gives_the_same_events(data: st.DataObject, which: list[bytes]) -> None:
    stream = b"".join(which)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*pieces) == parse(stream)


def test_an_event_is_given_with_its_last_byte_and_not_later() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\r\n\r") == [Event(b"a")]
    assert parser.feed(b"\ndata: b\n\n") == [Event(b"b")]


def test_an_event_without_end_is_refused_before_it_fills_the_memory() -> None:
    parser = EventParser()
    piece = b"x" * (1024 * 1024)
    for _ in range(MAX_EVENT // len(piece)):
        parser.feed(piece)
    with pytest.raises(TooLarge):
        parser.feed(piece)


def test_lines_without_end_of_event_are_refused_too() -> None:
    parser = EventParser()
    line = b"data: " + b"x" * 65_529 + b"\n"
    for _ in range(MAX_EVENT // len(line)):
        parser.feed(line)
    with pytest.raises(TooLarge):
        parser.feed(line)


def test_a_long_stream_of_small_events_is_never_too_large() -> None:
    parser = EventParser()
    event = b"data: " + b"x" * 65_536 + b"\n\n"
    assert sum(len(parser.feed(event)) for _ in range(2 * MAX_EVENT // len(event))) == 2 * MAX_EVENT // len(event)


def test_what_is_written_is_read_back() -> None:
    written = data_event({"words": "a\nb 🦄"}) + error_event({"error": {"message": "x"}}) + done_event()
    chunk, error, done = parse(written)
    assert chunk == Event('{"words":"a\\nb 🦄"}'.encode())
    assert (error.name, error.data) == (b"error", b'{"error":{"message":"x"}}')
    assert [event.done for event in (chunk, error, done)] == [False, False, True]

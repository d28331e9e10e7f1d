from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.limits import MAX_RECORD
from tokenplace.wire.stream import Record, RecordKind, RecordSplitter

few = settings(max_examples=150, deadline=None, database=None)

records_ = st.builds(Record, st.sampled_from(RecordKind), st.binary(max_size=40))
GOOD = Record(RecordKind.DATA, b"words")
TOO_LONG = (MAX_RECORD + 1).to_bytes(4, "big") + b"\1"
OF_NO_KIND = b"\0\0\0\5\x7fwords"


def cut(data: st.DataObject, stream: bytes) -> list[bytes]:
    """The stream in pieces, some of them empty."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def read(pieces: list[bytes]) -> tuple[list[Record], type[WireError] | None, str]:
    """What a reader gets of the pieces: records, and the fault that ends them."""
    splitter = RecordSplitter()
    records: list[Record] = []
    try:
        for piece in pieces:
            records += splitter.feed(piece)
        splitter.finish()
    except WireError as error:
        return records, type(error), error.message
    return records, None, ""


@few
@given(sent=st.lists(records_, max_size=8), data=st.data())
def test_any_cut_of_the_bytes_gives_the_same_records(sent: list[Record], data: st.DataObject) -> None:
    pieces = cut(data, b"".join(record.pack() for record in sent))
    assert read(pieces) == (sent, None, "")


@few
@given(sent=st.lists(records_, max_size=5), bad=st.sampled_from([TOO_LONG, OF_NO_KIND]), data=st.data())
def test_any_cut_gives_all_records_before_the_fault_and_then_the_fault(
    sent: list[Record], bad: bytes, data: st.DataObject
) -> None:
    stream = b"".join(record.pack() for record in sent) + bad + GOOD.pack()
    records, fault, why = read(cut(data, stream))
    assert records == sent
    assert (fault, why) == read([stream])[1:]
    assert fault is (TooLarge if bad is TOO_LONG else WireError)


@few
@given(stream=st.binary(max_size=60), data=st.data())
def test_any_cut_of_any_bytes_is_read_alike(stream: bytes, data: st.DataObject) -> None:
    assert read(cut(data, stream)) == read([stream])


def test_the_records_before_a_fault_are_given_first() -> None:
    splitter = RecordSplitter()
    assert splitter.feed(GOOD.pack() + GOOD.pack() + OF_NO_KIND) == [GOOD, GOOD]
    with pytest.raises(WireError, match="0x7f"):
        splitter.feed(b"")


def test_a_fault_with_nothing_before_it_is_raised_at_once() -> None:
    with pytest.raises(TooLarge):
        RecordSplitter().feed(TOO_LONG)
    with pytest.raises(WireError, match="0x7f"):
        RecordSplitter().feed(OF_NO_KIND)


def test_a_fault_is_seen_as_soon_as_the_prefix_tells_it() -> None:
    with pytest.raises(WireError, match="0x7f"):
        RecordSplitter().feed(OF_NO_KIND[:5])


def test_a_fault_sticks() -> None:
    splitter = RecordSplitter()
    assert splitter.feed(GOOD.pack() + TOO_LONG) == [GOOD]
    for step in (splitter.finish, lambda: splitter.feed(GOOD.pack()), lambda: splitter.feed(b""), splitter.finish):
        with pytest.raises(TooLarge):
            step()
    assert splitter.pending == 0


def test_a_stream_that_ends_with_its_fault_still_tells_it() -> None:
    splitter = RecordSplitter()
    splitter.feed(GOOD.pack() + OF_NO_KIND)
    with pytest.raises(WireError):
        splitter.finish()


def test_a_stream_cut_short_is_not_malformed() -> None:
    splitter = RecordSplitter()
    assert splitter.feed(GOOD.pack() + GOOD.pack()[:-1]) == [GOOD]
    splitter.finish()
    assert splitter.pending == len(GOOD.pack()) - 1
    assert splitter.feed(GOOD.pack()[-1:]) == [GOOD]
    assert splitter.pending == 0


def test_the_largest_record_is_taken() -> None:
    record = Record(RecordKind.DATA, bytes(MAX_RECORD))
    assert RecordSplitter().feed(record.pack()) == [record]

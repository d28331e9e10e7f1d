from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import WireError
from tokenplace.sealing import padding
from tokenplace.sealing.exchange import MAX_BODY, MAX_RECORD_DATA

few = settings(max_examples=60, deadline=None, database=None)


@few
@given(st.binary(max_size=3000))
def test_what_is_padded_unpads_to_itself(data: bytes) -> None:
    assert padding.unpad_request(padding.pad_request(data)) == data
    assert padding.unpad_record(padding.pad_record(data)) == data


@few
@given(st.binary(max_size=600))
def test_only_one_padding_is_taken_for_each_message(padded: bytes) -> None:
    for pad, unpad in [
        (padding.pad_request, padding.unpad_request),
        (padding.pad_record, padding.unpad_record),
    ]:
        try:
            data = unpad(padded)
        except WireError:
            continue
        assert pad(data) == padded


@few
@given(st.integers(0, MAX_BODY))
def test_a_padded_request_is_at_most_a_sixteenth_larger_or_one_step(data: int) -> None:
    size = padding.request_size(data)
    assert 0 <= size - (4 + data) < max(256, (4 + data) / 16)


@few
@given(st.integers(0, MAX_BODY))
def test_a_padded_request_is_never_finer_than_256_bytes_and_padding_it_again_adds_nothing(data: int) -> None:
    size = padding.request_size(data)
    assert size % 256 == 0
    assert padding.request_size(size - 4) == size


def test_sizes_never_shrink_as_data_grows() -> None:
    sizes = [padding.request_size(data) for data in range(20_000)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 32 + 16 + 4


def test_from_8_kib_on_the_steps_are_those_of_padme() -> None:
    assert {padding.request_step(size) for size in range(1, 8192)} == {256}
    assert [padding.request_step(1 << bits) for bits in range(13, 24)] == [
        512, 1024, 2048, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144,
    ]  # fmt: skip


@few
@given(st.integers(256, 9_000_000))
def test_the_room_in_a_size_is_used_up_and_not_exceeded(size: int) -> None:
    assert padding.request_size(padding.request_room(size)) <= size
    assert padding.request_size(padding.request_room(size) + 1) > size
    assert padding.record_size(padding.record_room(size)) <= size
    assert padding.record_size(padding.record_room(size) + 1) > size


def test_the_limits_are_what_the_documents_say() -> None:
    assert MAX_BODY == 8 * 1024 * 1024 - 4
    assert MAX_RECORD_DATA == 16_316


@pytest.mark.parametrize("place", range(9, 256))
def test_no_byte_of_the_padding_may_carry_anything(place: int) -> None:
    padded = bytearray(padding.pad_request(b"words"))
    padded[place] = 1
    with pytest.raises(WireError):
        padding.unpad_request(bytes(padded))

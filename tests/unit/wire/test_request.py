from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.ids import job_id_of
from tokenplace.wire.limits import MAX_REQUEST
from tokenplace.wire.request import HEADER_BYTES, Kem, RequestHeader, key_id_of

few = settings(max_examples=150, deadline=None, database=None)
HEADER = RequestHeader(b"key id..", Kem.X25519, b"request id.....!", 1_700_000_000_000)
SEALED = HEADER.pack() + bytes(32 + 16)
FIELDS = struct.Struct(">BB8sHHH16sQ")


def altered(place: int, value: object) -> bytes:
    fields = list(FIELDS.unpack_from(SEALED))
    fields[place] = value
    return FIELDS.pack(*fields) + SEALED[HEADER_BYTES:]


def test_what_was_packed_is_read_and_the_job_is_named_by_the_request_id() -> None:
    assert RequestHeader.parse(SEALED) == HEADER
    assert HEADER.job == job_id_of(b"request id.....!")


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (0, 1, "version 2 .* not 1"),
        (0, 3, "version 2 .* not 3"),
        (1, 1, "Flags 0x01"),
        (1, 0x80, "Flags 0x80"),
        (3, 0, "encapsulation 0x0000"),
        (3, 0x11, "encapsulation 0x0011"),
        (4, 2, "derivation 0x0002"),
        (5, 3, "Cipher 0x0003"),
    ],
)
def test_a_field_that_no_node_could_serve_is_refused_by_name(place: int, value: int, named: str) -> None:
    with pytest.raises(WireError, match=named):
        RequestHeader.parse(altered(place, value))


@pytest.mark.parametrize("size", [0, 1, HEADER_BYTES - 1])
def test_less_than_a_header_is_refused(size: int) -> None:
    with pytest.raises(WireError, match="at least 40 bytes"):
        RequestHeader.parse(SEALED[:size])


@pytest.mark.parametrize("kem", list(Kem))
def test_a_seal_too_short_for_its_key_encapsulation_is_refused(kem: Kem) -> None:
    header = RequestHeader(bytes(8), kem, bytes(16), 0)
    least = kem.enc_bytes + 16
    assert RequestHeader.parse(header.pack() + bytes(least)) == header
    with pytest.raises(WireError, match="cut short"):
        RequestHeader.parse(header.pack() + bytes(least - 1))


def test_the_largest_request_is_read_and_one_byte_more_is_not() -> None:
    RequestHeader.parse(SEALED + bytes(MAX_REQUEST - len(SEALED)))
    with pytest.raises(TooLarge):
        RequestHeader.parse(SEALED + bytes(MAX_REQUEST - len(SEALED) + 1))


def test_equal_keys_of_different_kinds_have_different_names() -> None:
    assert key_id_of(Kem.X25519, b"k") != key_id_of(Kem.X25519_MLKEM768, b"k")


@few
@given(st.binary(max_size=1300))
def test_any_bytes_are_a_header_or_a_wire_error(data: bytes) -> None:
    try:
        header = RequestHeader.parse(data)
    except WireError:
        return
    assert data.startswith(header.pack())


@few
@given(st.binary(min_size=8, max_size=8), st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1))
def test_every_header_survives_the_wire(key_id: bytes, request_id: bytes, time_ms: int) -> None:
    header = RequestHeader(key_id, Kem.X25519, request_id, time_ms)
    assert RequestHeader.parse(header.pack() + bytes(48)) == header

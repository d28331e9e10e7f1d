"""The classic protocol's bytes on our own pipes."""

import json

import pytest

from tokenplace.errors import TooLarge, WireError
from tokenplace.wire.classic import ClassicRequest, Door, LineReader, is_classic, job_of, pack_line
from tokenplace.wire.limits import MAX_RECORD, MAX_REQUEST
from tokenplace.wire.request import Kem, RequestHeader

REQUEST = ClassicRequest(Door.API, {"messages": {"iv": "x"}}, "/v1/chat/completions", True, "00ff", b"sixteen bytes id")
SEALED = RequestHeader(bytes(8), Kem.X25519, b"another sixteen.", 0).pack() + bytes(100)


def test_a_classic_request_survives_the_wire() -> None:
    assert ClassicRequest.parse(REQUEST.pack()) == REQUEST


def test_the_job_of_either_kind_is_read_without_the_rest() -> None:
    assert is_classic(REQUEST.pack())
    assert not is_classic(SEALED)
    assert job_of(REQUEST.pack()[:19]) == REQUEST.job
    assert job_of(SEALED) == RequestHeader.parse(SEALED).job


def test_two_requests_of_the_same_words_are_two_jobs() -> None:
    assert ClassicRequest(Door.RELAY, {}).job != ClassicRequest(Door.RELAY, {}).job


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\0short",
        b"\1\1" + bytes(16) + b"{}",
        b"\1\0" + bytes(16) + b"{",
        b"\1\0" + bytes(16) + b"[" * 100_000,
        b"\1\0" + bytes(16) + b"[]",
        b"\1\0" + bytes(16) + b'{"door": "window", "body": {}}',
        b"\1\0" + bytes(16) + b'{"door": "api", "body": []}',
        b"\1\0" + bytes(16) + b'{"door": "api", "body": {}, "path": 3}',
        b"\1\0" + bytes(16) + b'{"door": "api", "body": {}, "key_id": 3}',
    ],
)
def test_what_is_no_classic_request_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(WireError):
        ClassicRequest.parse(data)


def test_a_request_larger_than_the_protocol_allows_is_not_packed() -> None:
    with pytest.raises(TooLarge):
        ClassicRequest(Door.RELAY, {"chat_history": "a" * MAX_REQUEST}).pack()


@pytest.mark.parametrize("cut", [1, 7, MAX_RECORD])
def test_lines_come_whole_however_the_records_cut_them(cut: int) -> None:
    lines: list[dict[str, object]] = [
        {"status": 200},
        {"message": {"text": "é\n" * 20_000}},
        {"end": True, "usage": None},
    ]
    data = b"".join(pack_line(line) for line in lines)
    reader = LineReader()
    got = [line for start in range(0, len(data), cut) for line in reader.feed(data[start : start + cut])]
    assert got == json.loads(json.dumps(lines))


@pytest.mark.parametrize("line", [b"[]\n", b"{\n", b"[" * 100_000 + b"\n"])
def test_a_line_that_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(WireError):
        LineReader().feed(line)

from __future__ import annotations

import pytest

from tokenplace.errors import WireError
from tokenplace.wire.ids import job_id_of, node_id_of, parse_job_id, parse_node_id, show_node_id

NODE = node_id_of(b"n" * 32)


def test_a_node_id_is_read_as_people_write_it() -> None:
    shown = show_node_id(NODE)
    assert shown.count("-") == 7
    for text in (NODE, shown, shown.upper(), f" {shown.replace('-', ' ')}\n"):
        assert parse_node_id(text) == NODE


@pytest.mark.parametrize("text", ["", NODE[:-1], NODE + "a", NODE[:-1] + "1", NODE[:-1] + "é", NODE[:-1] + "\0"])
def test_what_is_no_node_id_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="32 characters"):
        parse_node_id(text)


def test_a_job_id_is_the_request_id_in_hex() -> None:
    assert parse_job_id(job_id_of(bytes(range(16)))) == "000102030405060708090a0b0c0d0e0f"


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "0" * 31 + "g", "A" * 32, "٠" * 32, " " + "0" * 31])
def test_what_is_no_job_id_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="32 lower-case hex"):
        parse_job_id(text)

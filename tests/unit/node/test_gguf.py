"""The head of a model file, sound and unsound."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenplace.errors import WeightsError
from tokenplace.node.gguf import Header, Sequenced, read_header
from unit.node.heads import gguf, small, text


def read(folder: Path, data: bytes) -> Header:
    path = folder / "m.gguf"
    path.write_bytes(data)
    return read_header(path)


def test_it_tells_fields_and_the_bytes_of_each_tensor(tmp_path: Path) -> None:
    header = read(tmp_path, small(layers=3, layer=4096, note="a word", ratio=0.5, flag=True))
    assert header.architecture == "llama"
    assert header.whole("block_count") == 3
    assert (header.fields["note"], header.fields["ratio"], header.fields["flag"]) == ("a word", 0.5, True)
    assert header.bytes_of_layers(3) == (4096, 4096, 4096)
    assert sum(header.tensors.values()) == 3 * 4096 + 2 * 2048 + 2048


def test_long_lists_are_counted_and_short_ones_kept(tmp_path: Path) -> None:
    more: dict[str, Any] = {"llama.attention.head_count_kv": [2, 0, 2, 0]}
    header = read(tmp_path, small(**more))
    assert header.fields["tokenizer.ggml.tokens"] == Sequenced(2000)
    assert header.per_layer("attention.head_count_kv", 4) == (2, 0, 2, 0)
    assert header.per_layer("attention.head_count", 4) == (8, 8, 8, 8)


def test_a_file_that_is_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is no GGUF file"):
        read(tmp_path, b"PK\x03\x04 and so on")


def test_a_version_from_the_future_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="version 9"):
        read(tmp_path, gguf({}, [], version=9))


def test_a_file_that_was_cut_in_its_weights_is_told_as_incomplete(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="incomplete"):
        read(tmp_path, gguf({"a": 1}, [("one", 4096), ("two", 4096)], cut=4096))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        read_header(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    "lie",
    [
        struct.pack("<QQ", 1 << 60, 0),  # tensors
        struct.pack("<QQ", 0, 1 << 60),  # fields
        struct.pack("<QQ", 0, 1) + struct.pack("<Q", 1 << 60),  # a name's length
        struct.pack("<QQ", 0, 1) + text("a") + struct.pack("<I", 99),  # a kind that there is not
        struct.pack("<QQ", 0, 1) + text("a") + struct.pack("<IIQ", 9, 4, 1 << 60),  # a list's length
        struct.pack("<QQ", 0, 1) + text("a") + struct.pack("<IIQ", 9, 9, 3),  # a list of lists
        struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<I", 1 << 31),  # a tensor's dimensions
    ],
)
def test_counts_that_cannot_be_are_refused_before_anything_is_taken_for_them(tmp_path: Path, lie: bytes) -> None:
    with pytest.raises(WeightsError):
        read(tmp_path, b"GGUF" + struct.pack("<I", 3) + lie)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 3000), junk=st.binary(min_size=1, max_size=8), cut=st.integers(0, 3000))
def test_whatever_is_altered_or_cut_it_is_read_or_refused_and_nothing_else(
    tmp_path: Path, where: int, junk: bytes, cut: int
) -> None:
    data = bytearray(gguf({"general.architecture": "llama", "words": ["a", "b"] * 40}, [("blk.0.x", 64), ("y", 32)]))
    data[where % len(data) : where % len(data) + len(junk)] = junk
    with suppress(WeightsError):
        assert read(tmp_path, bytes(data[: max(0, len(data) - cut)])).fields is not None

"""The head of a GGUF file: what a model file says of itself, and where its tensors lie. Reads nothing of the weights.

The file is a stranger's. Every count and length is bounded before anything is taken for it, and whatever does not
add up raises WeightsError. Long lists (the vocabulary) are walked over; only their length is kept.

Format: GGUF versions 2 and 3, little-endian, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from tokenplace.errors import WeightsError

MAGIC = b"GGUF"
VERSIONS = (2, 3)

MAX_FIELDS = 10_000
MAX_TENSORS = 100_000
"""The largest models have some thousand."""
MAX_ITEMS = 4_000_000
"""Entries of one list: the largest vocabularies have a quarter of a million."""
MAX_STRING = 1024 * 1024
"""Bytes: chat templates are the longest, with some tens of thousands."""
MAX_HEAD = 256 * 1024 * 1024
"""Bytes of head in all; the largest are about 20 MB."""
KEPT_ITEMS = 1024
"""Lists that are longer are only counted: those of one number for each layer are shorter."""

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _LIST = 8, 9
_ALIGNMENT = "general.alignment"
_BLOCK = re.compile(r"blk\.(\d+)\.")

Value: TypeAlias = "str | int | float | bool | Sequenced"


@dataclass(frozen=True, slots=True)
class Sequenced:
    """A list in the head. `items` is empty where it was too long to keep."""

    length: int
    items: tuple[str | int | float | bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Header:
    """The fields, and each tensor's bytes in the file (its padding included)."""

    fields: Mapping[str, Value]
    tensors: Mapping[str, int]

    @property
    def architecture(self) -> str:
        """`llama`, `qwen2`, …; empty where the file does not tell."""
        return str(self.fields.get("general.architecture", ""))

    def own(self, name: str) -> Value | None:
        """The architecture's own field, such as `block_count`."""
        return self.fields.get(f"{self.architecture}.{name}")

    def whole(self, name: str, default: int = 0) -> int:
        """The same as a whole number that is not negative; `default` where there is none."""
        value = self.own(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default

    def per_layer(self, name: str, layers: int, default: int = 0) -> tuple[int, ...]:
        """The same for each layer, whether the file gives one number or a list."""
        value = self.own(name)
        if isinstance(value, Sequenced):
            items = [item if isinstance(item, int) and item >= 0 else default for item in value.items]
            return tuple((items + [default] * layers)[:layers])
        return (self.whole(name, default),) * layers

    def bytes_of_layers(self, layers: int) -> tuple[int, ...]:
        """Weights of each layer."""
        sums = [0] * layers
        for name, size in self.tensors.items():
            found = _BLOCK.match(name)
            if found and int(found[1]) < layers:
                sums[int(found[1])] += size
        return tuple(sums)


def read_header(path: Path) -> Header:
    """The head of the file at `path`. Raises WeightsError when it is none, or the file is shorter than it says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _Reader(file, size, path.name).header()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error


class _Reader:
    def __init__(self, file: IO[bytes], size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._read = 0

    def header(self) -> Header:
        if self._take(4) != MAGIC:
            raise WeightsError(f"{self._name} is no GGUF file.")
        version = self._number("I")
        if version not in VERSIONS:
            raise WeightsError(f"{self._name} is a GGUF file of version {version}; known are 2 and 3.")
        tensors, fields = self._count(MAX_TENSORS, "tensors"), self._count(MAX_FIELDS, "fields")
        read: dict[str, Value] = {}
        for _ in range(fields):
            name = self._string()
            read[name] = self._value(self._number("I"))
        starts = dict(self._tensor() for _ in range(tensors))
        return Header(read, self._sizes(starts, read.get(_ALIGNMENT, 32)))

    def _tensor(self) -> tuple[str, int]:
        name = self._string()
        dimensions = self._number("I")
        if dimensions > 8:
            raise self._broken("a tensor of more than 8 dimensions")
        self._take(8 * dimensions + 4)
        return name, self._number("Q")

    def _sizes(self, starts: Mapping[str, int], alignment: Value) -> dict[str, int]:
        """From where each begins to where the next does: no table of number formats has to be kept up to date."""
        if not isinstance(alignment, int) or not 0 < alignment <= 1024 * 1024:
            raise self._broken("an alignment that cannot be")
        data = self._size - (self._read + -self._read % alignment)
        order = sorted(starts, key=lambda name: starts[name])
        ends = [starts[name] for name in order[1:]] + [data]
        sizes = {name: end - starts[name] for name, end in zip(order, ends, strict=True)}
        if any(size < 0 for size in sizes.values()) or (order and starts[order[-1]] >= max(data, 1)):
            raise WeightsError(f"{self._name} is incomplete: it is shorter than its head says. Pull it again.")
        return sizes

    def _value(self, kind: int) -> Value:
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _STRING:
            return self._string()
        if kind == _LIST:
            return self._list()
        raise self._broken(f"a field of the unknown kind {kind}")

    def _list(self) -> Sequenced:
        kind, length = self._number("I"), self._count(MAX_ITEMS, "items in a list")
        if kind in _NUMBERS:
            code = _NUMBERS[kind]
            raw = self._take(length * struct.calcsize(code))
            return Sequenced(length, struct.unpack(f"<{length}{code}", raw) if length <= KEPT_ITEMS else ())
        if kind == _STRING:
            if length <= KEPT_ITEMS:
                return Sequenced(length, tuple(self._string() for _ in range(length)))
            for _ in range(length):
                self._take(self._length())
            return Sequenced(length)
        raise self._broken(f"a list of the unknown kind {kind}")

    def _string(self) -> str:
        return self._take(self._length()).decode(errors="replace")

    def _length(self) -> int:
        length = self._number("Q")
        if length > MAX_STRING:
            raise self._broken(f"a string of {length} bytes")
        return length

    def _count(self, most: int, what: str) -> int:
        count = self._number("Q")
        if count > most:
            raise self._broken(f"{count} {what}")
        return count

    def _number(self, code: str) -> int:
        number: int = struct.unpack(f"<{code}", self._take(struct.calcsize(code)))[0]
        return number

    def _take(self, count: int) -> bytes:
        self._read += count
        if self._read > MAX_HEAD:
            raise self._broken(f"a head of more than {MAX_HEAD} bytes")
        data = self._file.read(count)
        if len(data) != count:
            raise WeightsError(f"{self._name} ends in the middle of its head. Pull it again.")
        return data

    def _broken(self, what: str) -> WeightsError:
        return WeightsError(f"{self._name} is no sound GGUF file: it tells of {what}. Pull it again.")

"""How fast a model can be on this machine at best, and which model of the catalogue suits it. Mostly arithmetic.

To make one token a dense model reads all its weights once, so that memory bandwidth ÷ bytes of weights bounds the
tokens per second of a single answer (the roofline model; Williams, Waterman, Patterson 2009).
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from tokenplace.openai.catalogue import ModelEntry

MiB = 1024 * 1024

READABLE = 5.0
"""Tokens per second below which an answer comes slower than people read."""

ROOM = 1.2
"""What a model takes in memory, in sizes of its file: contexts and buffers count."""

_BYTES_PER_PARAMETER = 0.61
"""Of the usual quantisation to about 4.8 bits (Q4_K_M)."""

_SIZE = re.compile(r"(?:(\d+)x)?([\d.]+)([BM])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A model of the catalogue that fits; `tokens_per_second` is guessed from the model that was measured."""

    model: str
    bytes: int
    tokens_per_second: float


def file_bytes(entry: ModelEntry) -> int | None:
    """Bytes of a model's file, as the catalogue says or as its parameters suggest."""
    if entry.file.bytes is not None:
        return entry.file.bytes
    found = _SIZE.search(entry.parameters)
    if found is None:
        return None
    count = float(found[2]) * (1e9 if found[3].upper() == "B" else 1e6) * int(found[1] or 1)
    return int(count * _BYTES_PER_PARAMETER)


def suggestions(
    entries: Iterable[ModelEntry], *, room: int, measured_bytes: int, tokens_per_second: float
) -> list[Suggestion]:
    """Models for chat that fit into `room` bytes and answer at reading speed, the largest first.

    A mixture of experts reads a part of its weights only, and is faster than the guess.
    """
    found = []
    for entry in entries:
        size = file_bytes(entry)
        if size is None or entry.toy or "chat" not in entry.capabilities or size * ROOM > room:
            continue
        guess = tokens_per_second * measured_bytes / size
        if guess >= READABLE:
            found.append(Suggestion(entry.id, size, round(guess, 1)))
    return sorted(found, key=lambda each: each.bytes, reverse=True)


def read_bandwidth(*, threads: int, room: int, seconds: float = 0.6) -> float:
    """Bytes per second that `threads` can read from memory together: they compare equal blocks, byte by byte.

    The blocks take at most a quarter of `room` bytes, and are far larger than a cache where that allows.
    """
    size = int(max(4 * MiB, min(256 * MiB, room // 4 // (2 * threads))))
    library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
    compare = library.memcmp
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    blocks = [(ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)) for _ in range(threads)]
    for pair in blocks:
        for block in pair:
            ctypes.memset(block, 1, size)  # until they are written to, all pages are the same one
    read = [0] * threads
    start = threading.Barrier(threads + 1)
    took = [0.0] * threads

    def work(index: int) -> None:
        one, two = blocks[index]
        start.wait()
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < seconds:
            compare(one, two, size)  # without Python's lock
            read[index] += 2 * size
        took[index] = now - began

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    for worker in workers:
        worker.join()
    return sum(count / span for count, span in zip(read, took, strict=True) if span)

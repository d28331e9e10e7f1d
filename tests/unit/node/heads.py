"""GGUF heads for tests, written as the format says (github.com/ggml-org/ggml, docs/gguf.md)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

_FLOAT, _BOOL, _STRING, _LIST, _U64 = 6, 7, 8, 9, 10


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(told: Any) -> bytes:
    """A value with its kind before it."""
    match told:
        case bool():
            return struct.pack("<I?", _BOOL, told)
        case int():
            return struct.pack("<IQ", _U64, told)
        case float():
            return struct.pack("<If", _FLOAT, told)
        case str():
            return struct.pack("<I", _STRING) + text(told)
        case list():
            items = [value(item) for item in told]
            return (
                struct.pack("<I", _LIST) + items[0][:4] + struct.pack("<Q", len(told)) + b"".join(i[4:] for i in items)
            )
    raise TypeError(told)


def gguf(fields: Mapping[str, Any], tensors: Sequence[tuple[str, int]], *, version: int = 3, cut: int = 0) -> bytes:
    """A file with these fields and tensors of these sizes, less `cut` bytes at its end."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(fields))
    head += b"".join(text(name) + value(told) for name, told in fields.items())
    start = 0
    for name, size in tensors:
        head += text(name) + struct.pack("<IQIQ", 1, size, 0, start)
        start += size + -size % 32
    whole = head + bytes(-len(head) % 32) + bytes(start)
    return whole[: len(whole) - cut]


def small(layers: int = 4, layer: int = 1024 * 1024, **more: Any) -> bytes:
    """A model of the llama kind: 8 heads of 64, 2 of them with keys and values, 1,000 words."""
    fields: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.context_length": 8192,
        "llama.embedding_length": 512,
        "llama.feed_forward_length": 2048,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": ["word"] * 2000,
        **more,
    }
    tensors = [("token_embd.weight", layer // 2), *((f"blk.{n}.attn.weight", layer) for n in range(layers))]
    return gguf(fields, [*tensors, ("output.weight", layer // 2), ("output_norm.weight", 2048)])

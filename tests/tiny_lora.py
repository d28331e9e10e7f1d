"""A real LoRA file, made in the test: the smallest GGUF that llama.cpp takes for an adapter of the embedded model.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

EMBEDDING, BLOCKS, RANK = 576, 30, 1
"""SmolLM2-135M's."""

_UINT32, _FLOAT32, _STRING, _F32, _ALIGNMENT = 4, 6, 8, 0, 32


def write_lora(path: Path, *, strength: float, seed: int = 1) -> Path:
    """Bend the queries of every block in a random direction."""
    dice = random.Random(seed)
    tensors = [
        (f"blk.{block}.attn_q.weight.lora_{part}", dims, [dice.gauss(0, strength) for _ in range(EMBEDDING * RANK)])
        for block in range(BLOCKS)
        for part, dims in (("a", (EMBEDDING, RANK)), ("b", (RANK, EMBEDDING)))
    ]
    fields = [
        ("general.type", _STRING, "adapter"),
        ("general.architecture", _STRING, "llama"),
        ("adapter.type", _STRING, "lora"),
        ("adapter.lora.alpha", _FLOAT32, float(RANK)),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    for key, kind, value in fields:
        head += _text(key) + struct.pack("<I", kind)
        head += _text(value) if isinstance(value, str) else struct.pack("<f", value)
    data = b""
    for name, dims, numbers in tensors:
        head += _text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, _F32, len(data))
        data += _aligned(struct.pack(f"<{len(numbers)}f", *numbers))
    path.write_bytes(_aligned(head) + data)
    return path


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _aligned(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)

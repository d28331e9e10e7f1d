"""How much memory a model needs, and what of it goes where. Pure arithmetic over a GGUF head; bytes everywhere.

    need = weights + KV cache (slots × context) + compute buffers + the process itself

What llama.cpp takes was read from its own log for the embedded model and several shapes; `tests/unit/node/
test_memory_model.py` holds the sum against the resident memory of a real child. GPU figures follow the same
arithmetic; the fixed part of a GPU (its driver's context) is an assumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokenplace.errors import EngineError, WeightsError
from tokenplace.node.gguf import Header, Sequenced

KIB, MIB, GIB = 2**10, 2**20, 2**30

PROCESS = 64 * MIB
"""The child without a model: Python, the library, its HTTP threads."""

GPU_CONTEXT = 400 * MIB
"""What a GPU's driver takes for a process before anything is loaded. Assumed, not measured by us."""

PAD = 256
"""Tokens: llama.cpp rounds each slot's context up to these."""

LEAST_CONTEXT = 512
"""Tokens below which a slot is of no use to a conversation."""

F16 = 2.0
"""Bytes of one number in the KV cache, as the engine runs it."""

_WINDOWED = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4}
"""Architectures in which every n-th layer looks at everything and the others through a sliding window."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: weights, KV cache of one token, window in tokens (0: all of the context), state of one slot."""

    weights: int
    per_token: float
    window: int = 0
    state: int = 0

    def cache(self, slots: int, context: int, batch: int) -> int:
        """Bytes of its KV cache."""
        tokens = _padded(context) if not self.window else min(_padded(context), _padded(self.window + batch))
        return slots * (round(tokens * self.per_token) + self.state)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What of a model takes memory. `input` are the tensors that stay with the processor, `output` the last ones."""

    layers: tuple[Layer, ...]
    input: int
    output: int
    tied: bool
    """The output layer is the input's table; on a GPU it is a copy."""
    vocabulary: int
    width: int
    inner: int
    extras: int = 0
    """Files beside it: projector, LoRA weights."""

    @property
    def weights(self) -> int:
        """Bytes of the file's tensors."""
        return sum(layer.weights for layer in self.layers) + self.input + self.output + self.extras


@dataclass(frozen=True, slots=True)
class Load:
    """How the model is run: answers at once, tokens of context of each, tokens of prompt at once."""

    slots: int
    context: int
    batch: int = 128


@dataclass(frozen=True, slots=True)
class Room:
    """A GPU, or the machine's memory: what is free, and what there is in all."""

    name: str
    free: int
    total: int

    def usable(self, headroom: float) -> int:
        """What may be taken so that taken × (1 + headroom) still fits."""
        return int(self.free / (1 + headroom))


@dataclass(frozen=True, slots=True)
class Sizing:
    """The decision. `gpu_layers` is llama.cpp's number (layers + 1 is everything), `split` its layers on each GPU."""

    slots: int
    context: int
    gpu_layers: int
    split: tuple[int, ...]
    host: int
    """Bytes of the machine's memory it takes, weights read from the page cache included."""
    mapped: int
    """Bytes of those that are the file's pages, which the system counts as free while they are in use."""
    gpu: int
    sentence: str


def headroom_of(told: float) -> float:
    """The headroom as a fraction: above 1 it is percent, below 0 it is none."""
    return 0.0 if told < 0 else told / 100 if told > 1 else told


def anatomy(header: Header, extras: int = 0) -> Anatomy:
    """What the head tells. Raises WeightsError when it lacks what is needed."""
    count = header.whole("block_count")
    if not 0 < count <= 10_000 or not header.tensors:
        raise WeightsError("This GGUF file does not tell of its layers; it is no model that answers.")
    width = header.whole("embedding_length")
    heads = header.per_layer("attention.head_count", count, 1)
    told = header.own("attention.head_count_kv") is not None
    kv_heads = header.per_layer("attention.head_count_kv", count) if told else heads
    windows = _windows(header, count)
    state = _state(header)
    layers = []
    for index, weights in enumerate(header.bytes_of_layers(count)):
        size = width // max(1, heads[index])
        key, value = header.whole("attention.key_length", size), header.whole("attention.value_length", size)
        per_token = kv_heads[index] * (key + value) * F16
        layers.append(Layer(weights, per_token, windows[index], state))
    output = sum(size for name, size in header.tensors.items() if name.startswith("output"))
    inside = sum(layer.weights for layer in layers)
    tokens = header.fields.get("tokenizer.ggml.tokens")
    return Anatomy(
        layers=tuple(layers),
        input=sum(header.tensors.values()) - inside - output,
        output=output,
        tied="output.weight" not in header.tensors,
        vocabulary=tokens.length if isinstance(tokens, Sequenced) else header.whole("vocab_size"),
        width=width,
        inner=max(header.per_layer("feed_forward_length", count, 4 * width)),
        extras=extras,
    )


def _windows(header: Header, count: int) -> tuple[int, ...]:
    window = header.whole("attention.sliding_window")
    pattern = header.own("attention.sliding_window_pattern")
    if not window:
        return (0,) * count
    if isinstance(pattern, Sequenced) and len(pattern.items) >= count:
        return tuple(window if windowed else 0 for windowed in pattern.items[:count])
    every = pattern if isinstance(pattern, int) and pattern > 0 else _WINDOWED.get(header.architecture)
    if every is None:
        return (0,) * count  # nobody says which layers: counting all of the context errs to the safe side
    return tuple(0 if (index + 1) % every == 0 else window for index in range(count))


def _state(header: Header) -> int:
    """Bytes of a recurrent layer's state for one slot; none where the model has no such layers."""
    inner, states = header.whole("ssm.inner_size"), header.whole("ssm.state_size")
    width = inner + 2 * header.whole("ssm.group_count") * states
    return 4 * (inner * states + max(0, header.whole("ssm.conv_kernel") - 1) * width)


def _padded(tokens: int) -> int:
    return tokens + -tokens % PAD


def compute(model: Anatomy, load: Load) -> int:
    """Bytes of the buffers for intermediate results, with flash attention, and of the words' probabilities."""
    batch = 4 * load.batch * (3 * model.inner + 6 * model.width + _padded(load.context))
    return batch + 2 * 4 * load.slots * model.vocabulary


def need(model: Anatomy, load: Load) -> int:
    """Everything, where it all lies in one memory."""
    cache = sum(layer.cache(load.slots, load.context, load.batch) for layer in model.layers)
    return model.weights + cache + compute(model, load) + PROCESS


def size_up(
    name: str,
    model: Anatomy,
    load: Load,
    *,
    memory: Room,
    gpus: Sequence[Room] = (),
    headroom: float = 0.1,
    most_layers: int | None = None,
    shrink_slots: bool = True,
    shrink_context: bool = True,
    note: str = "",
) -> Sizing:
    """Where the model goes, and with how many slots of how much context.

    As many layers as fit go to the GPUs (at most `most_layers`), the rest stays with the processor. Where the
    machine's memory is too small, slots and then context are made fewer, if that is allowed. Raises EngineError.
    """
    wanted = need(model, load)
    for attempt in _attempts(load, shrink_slots=shrink_slots, shrink_context=shrink_context):
        counts = _placed(model, attempt, gpus, headroom, most_layers)
        host, mapped, gpu = _costs(model, attempt, sum(counts), len([n for n in counts if n]))
        if host <= memory.usable(headroom):
            told = _sentence(name, model, wanted, memory, gpus, counts)
            if (attempt.slots, attempt.context) != (load.slots, load.context):
                told += (
                    f" Memory does not hold {load.slots} slots of {load.context} tokens:"
                    f" it runs with {attempt.slots} of {attempt.context}."
                )
            told = f"{told} {note}".strip()
            return Sizing(attempt.slots, attempt.context, sum(counts), counts, host, mapped, gpu, told)
    least = replace(
        load,
        slots=1 if shrink_slots else load.slots,
        context=min(load.context, LEAST_CONTEXT) if shrink_context else load.context,
    )
    fewer = "" if shrink_slots and shrink_context else ", or fewer slots and a shorter context"
    raise EngineError(
        f"The model {name} needs {_gib(need(model, least))} of memory with {least.slots} "
        f"slot{'s' * (least.slots != 1)} of {least.context} tokens; {_gib(memory.free)} of {_gib(memory.total)} are "
        f"free, and {headroom:.0%} stay as headroom. Choose a smaller model{fewer}, or make room."
    )


def _attempts(load: Load, *, shrink_slots: bool, shrink_context: bool) -> list[Load]:
    """As wanted, then fewer slots, then a shorter context with the fewest slots."""
    tried = [load]
    while shrink_slots and tried[-1].slots > 1:
        tried.append(replace(tried[-1], slots=max(1, tried[-1].slots // 2)))
    while shrink_context and tried[-1].context > LEAST_CONTEXT:
        tried.append(replace(tried[-1], context=max(LEAST_CONTEXT, tried[-1].context // 2)))
    return tried


def _placed(model: Anatomy, load: Load, gpus: Sequence[Room], headroom: float, most: int | None) -> tuple[int, ...]:
    """Layers on each GPU, the output layer counted as one more; the last layers go first, as llama.cpp does it."""
    none = (0,) * len(gpus)
    everything = len(model.layers) + 1
    for count in range(everything if most is None else min(most, everything), 0, -1):
        usable = [gpu.usable(headroom) for gpu in gpus]
        roomiest = max(range(len(gpus)), key=lambda index: usable[index], default=None)
        if roomiest is None:
            return none
        alone = tuple(count if index == roomiest else 0 for index in range(len(gpus)))
        for counts in (alone, _spread(model, load, count, usable)):
            if counts is not None and _fits(model, load, counts, usable):
                return counts
    return none


def _parts(model: Anatomy, load: Load, count: int) -> list[int]:
    """Bytes of each of the last `count` layers, the output layer at the end."""
    layers = [layer.weights + layer.cache(load.slots, load.context, load.batch) for layer in model.layers]
    output = model.output + (model.input if model.tied else 0)
    return [*layers, output][-count:] if count else []


def _spread(model: Anatomy, load: Load, count: int, usable: Sequence[int]) -> tuple[int, ...] | None:
    """Fill one GPU after the other. None when it does not all go in."""
    parts = _parts(model, load, count)
    counts = []
    for room in usable:
        left, taken = room - GPU_CONTEXT - compute(model, load), 0
        while parts and parts[0] <= left:
            left -= parts.pop(0)
            taken += 1
        counts.append(taken)
    return None if parts else tuple(counts)


def _fits(model: Anatomy, load: Load, counts: Sequence[int], usable: Sequence[int]) -> bool:
    parts = _parts(model, load, sum(counts))
    beside = model.extras
    for count, room in zip(counts, usable, strict=True):
        if count:
            mine, parts = parts[:count], parts[count:]
            if sum(mine) + GPU_CONTEXT + compute(model, load) + beside > room:
                return False
            beside = 0  # projector and adapters lie on the first
    return True


def _costs(model: Anatomy, load: Load, gpu_layers: int, gpus: int) -> tuple[int, int, int]:
    """(machine's memory, of that the file's pages, GPUs' memory)."""
    on_gpu = sum(_parts(model, load, gpu_layers))
    everything = len(model.layers) + 1
    stay = model.layers[: max(0, everything - gpu_layers)] if gpu_layers else model.layers
    mapped = sum(layer.weights for layer in stay) + model.input
    mapped += 0 if gpu_layers else model.output + model.extras
    cache = sum(layer.cache(load.slots, load.context, load.batch) for layer in stay)
    host = mapped + cache + compute(model, load) + PROCESS
    return host, mapped, on_gpu + gpus * (GPU_CONTEXT + compute(model, load)) + (model.extras if gpu_layers else 0)


def _sentence(
    name: str,
    model: Anatomy,
    wanted: int,
    memory: Room,
    gpus: Sequence[Room],
    counts: Sequence[int],
) -> str:
    taken = [gpu for gpu, count in zip(gpus, counts, strict=True) if count]
    if not gpus:
        return (
            f"Model {name} needs {_gib(wanted)}; {_gib(memory.free)[:-4]} of {_gib(memory.total)} of memory are free: "
            "it runs on the processor."
        )
    free = " and ".join(f"{_gib(gpu.free)[:-4]} of {_gib(gpu.total)} are free on {gpu.name}" for gpu in taken or gpus)
    where = "the GPU" if len(taken or gpus) == 1 else "the GPUs"
    layers, whole = min(sum(counts), len(model.layers)), len(model.layers) + 1
    if sum(counts) == whole:
        what = f"all {len(model.layers)} layers go to {where}"
    elif layers:
        what = f"{layers} of {len(model.layers)} layers go to {where}"
    else:
        what = "that is too little, it runs on the processor"
    return f"Model {name} needs {_gib(wanted)}; {free}: {what}."


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"

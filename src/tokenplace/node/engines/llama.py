"""The embedded engine: llama.cpp in a child process, spoken to over a unix socket in a private directory.

The child may crash; the node does not. When it does, answers in flight raise EngineCrashed, and the child is started
again, at once the first time and then after growing pauses.

**Prompt caches are switched off** (`reuse_prompts=False`): a cache that is shared between people tells one of them,
by its speed, what another has asked. Every request says `cache_prompt: false`, and the child keeps nothing of a
finished request. Who serves only himself may switch it on; then a shared beginning is not computed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from tokenplace.errors import EngineCrashed, EngineError
from tokenplace.node.engines.base import EngineAnswer, JsonObject, Readiness
from tokenplace.node.engines.child import SOCKET, Child, start_child
from tokenplace.node.engines.confine import Guards
from tokenplace.node.engines.dialect import WithoutProgress, decodes, prepared
from tokenplace.node.engines.endpoint import Endpoint
from tokenplace.node.engines.llama_child import ChildConfig
from tokenplace.node.guardrail import Device, Guardrail
from tokenplace.node.hardware import Sensors
from tokenplace.node.memory import Load, Sizing
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

log = structlog.get_logger()

_STUCK, _STUCK_LOOKING = 30.0, 300.0
SETTLED = 60.0
"""Seconds after which a child counts as healthy, and its next crash is restarted at once again."""


def default_threads(cores: int | None = None) -> int:
    """One thread fewer than the cores this process may use, at least one.

    llama.cpp's workers spin: with as many threads as cores, one other busy process makes decoding three times slower.
    """
    return max(1, (Sensors().cores() if cores is None else cores) - 1)


def suitable_slots(cores: int, *, gpu: bool) -> int:
    """How many answers to give at once: batching shares one reading of the weights, until arithmetic is the bound."""
    if gpu:
        return 8
    return 4 if cores <= 8 else 8


def suitable_batch(weights: int, threads: int, slots: int, *, gpu: bool) -> int:
    """How many tokens of a prompt to compute at once, for a model file of `weights` bytes.

    While a batch is computed the other answers wait, and two may pass before a client's leaving is noticed. So a batch
    should take about half a second (at llama.cpp's own 2,048 tokens it takes seconds). A thread does some 40 billion
    operations a second, a token two per parameter, a parameter takes about 0.7 bytes. Below 16 tokens, and on GPUs
    below 512, a batch costs more than it helps; and it must hold a token of every slot.
    """
    if gpu:
        return 512
    tokens = 0.5 * threads * 40e9 / (2 * weights / 0.7)
    return int(max(16, slots, min(128, 2 ** math.floor(math.log2(max(tokens, 1))))))


def pauses() -> Iterator[float]:
    """Seconds to wait before each new start of a child that keeps dying: none, then 1, 2, 4 … 30."""
    yield 0.0
    pause = 1.0
    while True:
        yield pause
        pause = min(2 * pause, 30.0)


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """How to run the model. `context` is tokens of each slot; memory grows with slots × context."""

    slots: int = 4
    context: int = 2048
    threads: int | None = None
    """None means `default_threads()`."""
    batch: int | None = None
    """Tokens of prompt computed at once; None means `suitable_batch()`."""
    reuse_prompts: bool = False
    cache_ram_mib: int = 512
    """Bound of the prompt cache where `reuse_prompts` is on; llama.cpp's own default is 8 GiB."""
    gpu_layers: int | None = None
    """Where there is no guardrail: None lets llama.cpp fit the model to the GPU's free memory; 0 keeps to the CPU."""
    vision: Path | None = None
    """The projector file (mmproj) of a model that looks at images."""
    adapters: Mapping[ModelId, Path] = field(default_factory=dict)
    """LoRA files, each under the model id that asks for it."""
    embeddings: bool = False
    """Serve /v1/embeddings too (mean of the token vectors); inputs are limited to `batch` tokens."""
    start_timeout: float = 600.0
    """Seconds a load may take: a big model comes from a slow disk."""
    look_every: float = 3.0
    """Seconds between two looks whether the child still answers."""
    hung_after: float = 10.0
    """Seconds without an answer, twice over, after which the child counts as hung and is killed. Its HTTP threads
    answer at once however long it computes."""
    stuck_after: float | None = None
    """Seconds without a next batch, twice over, after which it is killed. None: 30, as each takes about half a second
    and only what somebody asked for on purpose takes longer; 300 with `vision`, as a picture may take a minute."""
    confined: bool = True
    """Take away every right that the child does not need, as far as this system can."""
    tcp: bool = sys.platform == "win32"
    """A free port on 127.0.0.1 instead of a unix socket; the random key is then the only lock."""


class LlamaEngine:
    """One model file in one child process. `card` is how the node's card shows it."""

    def __init__(
        self, model: Path, card: ModelCard, options: LlamaOptions | None = None, guardrail: Guardrail | None = None
    ) -> None:
        self._model = model
        self._card = card
        self._options = options or LlamaOptions()
        self._guardrail = guardrail
        self._adapters = tuple(self._options.adapters)
        self._key = secrets.token_urlsafe(24)
        self._readiness = Readiness()
        self._endpoint: Endpoint | None = None
        self._child: Child | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.sizing: Sizing | None = None
        """What the guardrail decided when the model was loaded last."""
        self._devices: tuple[Device, ...] = ()

    @property
    def slots(self) -> int:
        """How many answers it decodes together."""
        return self._options.slots if self.sizing is None else self.sizing.slots

    @property
    def guards(self) -> Guards:
        """Which rights the child has given up; none while there is no child."""
        return Guards() if self._child is None else self._child.guards

    @property
    def models(self) -> Sequence[ModelCard]:
        """The model and its LoRA adapters, with the context one slot really has (once started)."""
        return (self._card, *(replace(self._card, id=name, digest=None) for name in self._adapters))

    @property
    def ready(self) -> bool:
        """Whether the child serves."""
        return self._readiness.up

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return self._child.process.pid if self._child is not None and self._child.alive else None

    @property
    def socket(self) -> Path | None:
        """Where the child listens, None over TCP or while the engine is stopped."""
        return None if self._child is None or self._child.home is None else self._child.home / SOCKET

    async def wait_ready(self, ready: bool = True) -> None:
        """See `Engine.wait_ready`."""
        await self._readiness.wait(ready)

    async def start(self) -> None:
        """Load the model; returns when it serves. Raises EngineError with the reason when it cannot."""
        if self._watcher is not None:
            raise EngineError("This engine was started already.")
        if not self._model.is_file():
            raise EngineError(f"There is no model file {self._model}. Fetch it with `tokenplace models pull`.")
        try:
            await self._spawn()
        except BaseException:
            await self.stop()
            raise
        self._readiness.set(True)
        self._watcher = asyncio.create_task(self._keep_alive(), name="llama-engine")

    async def stop(self) -> None:
        """End the child and remove its directory; answers in flight raise EngineCrashed. May be called twice."""
        self._readiness.set(False)
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        child, self._child = self._child, None
        if child is not None:
            await child.end()
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    @asynccontextmanager
    async def open(self, path: str, body: JsonObject) -> AsyncIterator[EngineAnswer]:
        """Ask llama.cpp's server. Leaving the block closes the connection, which frees the slot."""
        if not self._readiness.up or self._endpoint is None:
            raise EngineCrashed("The model is being loaded; try again in a moment.")
        async with self._endpoint.open(path, self._prepared(path, body)) as answer:
            yield WithoutProgress(answer)

    async def busy_slots(self) -> int:
        """How many slots are decoding right now, as llama.cpp itself says. Raises EngineError."""
        return sum(bool(slot["is_processing"]) for slot in await self._ask_slots())

    async def _ask_slots(self) -> list[dict[str, int]]:
        if self._endpoint is None:
            raise EngineError("The engine is not running.")
        slots: list[dict[str, int]] = await self._endpoint.get_json("/slots")
        return slots

    def _prepared(self, path: str, body: JsonObject) -> JsonObject:
        if not decodes(path):
            return body
        asked = {**prepared(body), "cache_prompt": self._options.reuse_prompts}
        if self._adapters:
            # The whole list, with explicit zeros: leaving an adapter out of it would apply it.
            wanted = body.get("model")
            asked["lora"] = [
                {"id": index, "scale": 1.0 if name == wanted else 0.0} for index, name in enumerate(self._adapters)
            ]
        return asked

    def fits(self) -> bool:
        """Whether it could be loaded now, no worse than the last time."""
        try:
            sizing = self.size(self._devices)
        except EngineError:
            return False
        if sizing is None:
            return True
        before = self.sizing
        wanted = (self._options.slots, self._options.context, 0)
        if before is not None:
            wanted = (before.slots, before.context, before.gpu_layers)
        return all(
            now >= then for now, then in zip((sizing.slots, sizing.context, sizing.gpu_layers), wanted, strict=True)
        )

    def size(self, devices: Sequence[Device] = ()) -> Sizing | None:
        """What the guardrail would decide now. Raises EngineError when there is no room; None without a guardrail."""
        if self._guardrail is None:
            return None
        options = self._options
        batch = options.batch or self._batch(options.slots, gpu=bool(devices))
        return self._guardrail.size(Load(options.slots, options.context, batch), devices)

    def _batch(self, slots: int, *, gpu: bool) -> int:
        threads = self._options.threads or default_threads()
        return suitable_batch(self._model.stat().st_size, threads, slots, gpu=gpu)

    def _config(self, devices: Sequence[Device], home: Path | None) -> ChildConfig:
        options = self._options
        self._devices = tuple(devices)
        self.sizing = sizing = self.size(devices)
        if sizing is not None:
            log.info("engine_sized", told=sizing.sentence)
        slots = options.slots if sizing is None else sizing.slots
        layers = options.gpu_layers if sizing is None else sizing.gpu_layers
        return ChildConfig(
            model=str(self._model.resolve()),
            key=self._key,
            socket=None if home is None else str(home / SOCKET),
            slots=slots,
            context=options.context if sizing is None else sizing.context,
            threads=options.threads or default_threads(),
            batch=options.batch or self._batch(slots, gpu=bool(layers)),
            reuse_prompts=options.reuse_prompts,
            cache_ram_mib=options.cache_ram_mib,
            gpu_layers=layers,
            split=() if sizing is None else sizing.split,
            vision=None if options.vision is None else str(options.vision.resolve()),
            adapters=tuple(str(path.resolve()) for path in options.adapters.values()),
            embeddings=options.embeddings,
        )

    async def _spawn(self) -> None:
        """One child, warm, in a directory of its own. Raises EngineError; then no process is left."""
        options = self._options
        child = await start_child(
            self._model.name, self._config, timeout=options.start_timeout, tcp=options.tcp, confined=options.confined
        )
        try:
            if self._endpoint is not None:
                await self._endpoint.close()
            root = child.address if child.home is None else "http://llama"
            self._endpoint = Endpoint(root, key=self._key, socket=child.config.socket)
            self._card = replace(self._card, context=(await self._ask_slots())[0]["n_ctx"])
        except BaseException:
            await child.end()
            raise
        self._child = child
        if child.guards.lacking:
            log.info("engine_confined", told=child.guards.sentence())

    async def _keep_alive(self) -> None:
        """Start the child again whenever it ends or hangs. Cancelled by `stop`."""
        loop = asyncio.get_running_loop()
        waits = pauses()
        while True:
            since = ended = loop.time()
            if self._child is not None:
                status = await self._ended(self._child)
                self._readiness.set(False)
                log.warning("engine_crashed", status=status, lived_s=round(loop.time() - since))
                ended = loop.time()
                await self._child.end()
            if loop.time() - since > SETTLED:
                waits = pauses()
            self._child = None
            await asyncio.sleep(next(waits))
            try:
                await self._spawn()
            except EngineError as error:
                log.warning("engine_start_failed", reason=error.message)
            else:
                self._readiness.set(True)
                log.info("engine_restarted", after_s=round(loop.time() - ended, 2))

    async def _ended(self, child: Child) -> int:
        """Wait until the child ends, and see to it that one that hangs does. Returns its exit status."""
        options = self._options
        stuck_after = options.stuck_after or (_STUCK if options.vision is None else _STUCK_LOOKING)
        waiting = {
            asyncio.create_task(child.process.wait(), name="engine-ends"),
            asyncio.create_task(self._silent("/health", options.hung_after), name="engine-hangs"),
            asyncio.create_task(self._silent("/slots", stuck_after), name="engine-sticks"),
        }
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if child.alive:
                log.warning("engine_hung")
                self._readiness.set(False)
                with contextlib.suppress(ProcessLookupError):
                    child.process.kill()
            return await child.process.wait()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    async def _silent(self, path: str, patience: float) -> None:
        """Return when the child has not answered twice: once may be this machine waking up."""
        missed = 0
        while missed < 2:
            await asyncio.sleep(self._options.look_every)
            if self._endpoint is None:
                continue
            try:
                await self._endpoint.get_json(path, timeout=patience)
                missed = 0
            except EngineCrashed:
                continue  # it has just died, which is noticed elsewhere
            except EngineError:
                missed += 1

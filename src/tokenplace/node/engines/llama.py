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
import json
import math
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import structlog

from tokenplace.errors import EngineCrashed, EngineError
from tokenplace.node.engines.base import EngineAnswer, JsonObject, Readiness
from tokenplace.node.engines.dialect import WithoutProgress, asking_for_progress, decodes
from tokenplace.node.engines.endpoint import Endpoint
from tokenplace.node.engines.llama_child import ChildConfig
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

log = structlog.get_logger()

SUN_PATH_MAX = 100
"""Characters of a unix socket's path that every system takes (Linux 107, macOS 103)."""

SOCKET = "llama.sock"
"""llama.cpp knows a unix socket by this ending."""

_COMPLAINT = re.compile(r"[\d.]+ E (\w+ +)?\w+(\(\))?: (error loading model: )?(?P<cause>.+)")

STOP_GRACE = 2.0
"""Seconds between closing the child's pipe and killing it."""

SETTLED = 60.0
"""Seconds after which a child counts as healthy, and its next crash is restarted at once again."""

STDERR_KEPT = 8192
"""Bytes of the child's last words while it loads."""


def default_threads() -> int:
    """One thread fewer than the cores this process may use, at least one.

    llama.cpp's workers spin: with as many threads as cores, one other busy process makes decoding three times slower.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores - 1)


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
    """None lets llama.cpp fit the model to the free memory of the GPU; 0 keeps to the CPU."""
    vision: Path | None = None
    """The projector file (mmproj) of a model that looks at images."""
    adapters: Mapping[ModelId, Path] = field(default_factory=dict)
    """LoRA files, each under the model id that asks for it."""
    embeddings: bool = False
    """Serve /v1/embeddings too (mean of the token vectors); inputs are limited to `batch` tokens."""
    start_timeout: float = 600.0
    """Seconds a load may take: a big model comes from a slow disk."""
    tcp: bool = sys.platform == "win32"
    """A free port on 127.0.0.1 instead of a unix socket; the random key is then the only lock."""


class LlamaEngine:
    """One model file in one child process. `card` is how the node's card shows it."""

    def __init__(self, model: Path, card: ModelCard, options: LlamaOptions | None = None) -> None:
        self._model = model
        self._card = card
        self._options = options or LlamaOptions()
        self._adapters = tuple(self._options.adapters)
        self._key = secrets.token_urlsafe(24)
        self._readiness = Readiness()
        self._home: Path | None = None
        self._endpoint: Endpoint | None = None
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def slots(self) -> int:
        """How many answers it decodes together."""
        return self._options.slots

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
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def socket(self) -> Path | None:
        """Where the child listens, None over TCP or while the engine is stopped."""
        return None if self._home is None else self._home / SOCKET

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
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()
        self._leave_home()

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
        prepared = {**asking_for_progress(body), "cache_prompt": self._options.reuse_prompts}
        if self._adapters:
            # The whole list, with explicit zeros: leaving an adapter out of it would apply it.
            wanted = body.get("model")
            prepared["lora"] = [
                {"id": index, "scale": 1.0 if name == wanted else 0.0} for index, name in enumerate(self._adapters)
            ]
        return prepared

    def _config(self) -> ChildConfig:
        options = self._options
        threads = options.threads or default_threads()
        weights = self._model.stat().st_size
        return ChildConfig(
            model=str(self._model.resolve()),
            key=self._key,
            socket=None if self.socket is None else str(self.socket),
            slots=options.slots,
            context=options.context,
            threads=threads,
            batch=options.batch or suitable_batch(weights, threads, options.slots, gpu=bool(options.gpu_layers)),
            reuse_prompts=options.reuse_prompts,
            cache_ram_mib=options.cache_ram_mib,
            gpu_layers=options.gpu_layers,
            vision=None if options.vision is None else str(options.vision.resolve()),
            adapters=tuple(str(path.resolve()) for path in options.adapters.values()),
            embeddings=options.embeddings,
        )

    def _leave_home(self) -> None:
        home, self._home = self._home, None
        if home is not None:
            shutil.rmtree(home, ignore_errors=True)

    async def _spawn(self) -> None:
        """One child, warm, in a directory of its own. Raises EngineError; then no process is left."""
        self._leave_home()
        # -P: a file called xllamacpp.py in the working directory is not the library.
        # A session of its own: Ctrl-C in the terminal is for the node, which lets its answers end first.
        try:
            self._home = None if self._options.tcp else _private_directory()
            config = self._config()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "tokenplace.node.engines.llama_child",
                stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EngineError(f"The model {self._model.name} cannot be loaded: {error}") from error
        try:
            address = await self._loaded(process, config)
            if self._endpoint is not None:
                await self._endpoint.close()
            root = address if config.socket is None else "http://llama"
            self._endpoint = Endpoint(root, key=self._key, socket=config.socket)
            self._process = process
            self._card = replace(self._card, context=(await self._ask_slots())[0]["n_ctx"])
        except BaseException:
            await _end(process)
            raise

    async def _loaded(self, process: Process, config: ChildConfig) -> str:
        """Hand the configuration over and wait for the child's one line. Returns its address."""
        stdin = cast("asyncio.StreamWriter", process.stdin)  # pipes all three, as _spawn asked for
        stdout, stderr = cast("asyncio.StreamReader", process.stdout), cast("asyncio.StreamReader", process.stderr)
        try:
            async with asyncio.timeout(self._options.start_timeout), asyncio.TaskGroup() as group:
                last_words = group.create_task(_tail_of(stderr))
                stdin.write(config.line())
                line = await stdout.readline()
                report = json.loads(line) if line else {}
                if "ready" in report:
                    last_words.cancel()  # its end cannot be waited for: under uvloop the child holds a second copy
        except TimeoutError:
            raise EngineError(
                f"{self._model.name} was not loaded after {self._options.start_timeout:.0f} s; "
                "use a smaller model or a faster disk."
            ) from None
        if "ready" in report:
            return str(report["ready"])
        reason = _reason(last_words.result()) or report.get("error") or _ending(await process.wait())
        raise EngineError(f"The model {self._model.name} cannot be loaded: {reason}")

    async def _keep_alive(self) -> None:
        """Start the child again whenever it ends. Cancelled by `stop`."""
        loop = asyncio.get_running_loop()
        waits = pauses()
        while True:
            since = loop.time()
            if self._process is not None:
                status = await self._process.wait()
                self._readiness.set(False)
                log.warning("engine_crashed", status=status, lived_s=round(loop.time() - since))
            if loop.time() - since > SETTLED:
                waits = pauses()
            self._process = None
            await asyncio.sleep(next(waits))
            try:
                await self._spawn()
            except EngineError as error:
                log.warning("engine_start_failed", reason=error.message)
            else:
                self._readiness.set(True)
                log.info("engine_restarted")


def _private_directory() -> Path:
    """A new directory that only this user enters, with a path short enough for a unix socket in it."""
    home = Path(tempfile.mkdtemp(prefix="tp-"))
    if len(str(home / SOCKET)) > SUN_PATH_MAX:
        home.rmdir()
        home = Path(tempfile.mkdtemp(prefix="tp-", dir=f"{os.sep}tmp"))
    return home


async def _tail_of(stream: asyncio.StreamReader) -> bytes:
    """Read to the end, keep the last bytes."""
    tail = b""
    while chunk := await stream.read(4096):
        tail = (tail + chunk)[-STDERR_KEPT:]
    return tail


def _reason(last_words: bytes) -> str:
    """The first complaint of llama.cpp, which names the cause, without its time stamp and function names."""
    for line in last_words.decode(errors="replace").splitlines():
        if found := _COMPLAINT.match(line):
            return found["cause"]
    return ""


def _ending(status: int) -> str:
    """An exit status for people, with the usual cause where there is one."""
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    causes = {"SIGKILL": "not enough memory, most often", "SIGILL": "this build wants a newer processor"}
    return f"the process was ended by {name}" + (f" ({causes[name]})" if name in causes else "")


async def _end(process: Process) -> None:
    """Close the pipe, wait a little, kill. Returns when the process is gone."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP_GRACE):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

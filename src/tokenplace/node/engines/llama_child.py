"""llama.cpp in a process of its own: the only file that imports xllamacpp.

    python -P -m tokenplace.node.engines.llama_child

speaks lines of JSON over its pipes:

    in    {"confine": true, "network": false}   what it may keep; the network is gone before the library is loaded
    out   {"devices": […]}                      what the library can compute on: the node decides what goes where
    in    a `ChildConfig`
    out   {"ready": "ADDRESS", "held": […], "lacking": […]}   or   {"error": "…"}

Between the last two it gives up its other rights, loads the model and serves llama.cpp's own HTTP server on a unix
socket. Then it turns stdout and stderr off, so that nothing a person wrote can leave this way, and lives until stdin
ends. stdin is a pipe that the node holds open: however the node ends, `kill -9` included, the pipe ends with it. The
socket's directory goes too.

A process of its own, because llama.cpp ends the process it lives in when something is badly wrong, and because two
engines in one process slow each other down to a third.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenplace.node.engines.confine import Guards, confine, seclude

if TYPE_CHECKING:
    import xllamacpp

_LOG_SETTLES = 0.3
"""Seconds in which llama.cpp's log is written out where it cannot be told to: on Windows its symbols are hidden."""


@dataclass(frozen=True, slots=True)
class ChildConfig:
    """What the child needs to know. Times and sizes as llama.cpp counts them; `context` is tokens per slot."""

    model: str
    key: str
    socket: str | None
    """Path of the unix socket, or None for a free TCP port on 127.0.0.1."""
    slots: int
    context: int
    threads: int
    batch: int
    reuse_prompts: bool
    cache_ram_mib: int
    gpu_layers: int | None
    split: tuple[int, ...]
    """Layers on each of the devices, where there are several."""
    vision: str | None
    adapters: tuple[str, ...]
    embeddings: bool

    def line(self) -> bytes:
        """As it goes through the pipe."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> ChildConfig:
        """The reverse of `line`."""
        raw = json.loads(line)
        return cls(**{**raw, "adapters": tuple(raw["adapters"]), "split": tuple(raw["split"])})

    def __repr__(self) -> str:
        return f"ChildConfig(model={self.model!r}, slots={self.slots}, context={self.context})"


def devices() -> list[dict[str, Any]]:
    """What can be computed on besides the processor: GPUs, with their free and total bytes as their driver tells."""
    # libgomp reads it when xllamacpp is imported. Its workers spin while they wait for each other; with long spins
    # and another busy process on the cores, decoding falls to a tenth.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    import xllamacpp as x

    gpus = (x.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU, x.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return [
        {"name": told["name"], "bus": told["device_id"], "free": told["memory_free"], "total": told["memory_total"]}
        for told in x.get_device_info()
        if told["type"] in gpus
    ]


def serve(config: ChildConfig) -> xllamacpp.Server:
    """Load the model and serve it. Raises RuntimeError when llama.cpp cannot."""
    import xllamacpp as x

    p = x.CommonParams()
    p.model.path = config.model
    p.n_parallel = config.slots
    p.n_ctx = config.slots * config.context  # llama.cpp wants the total and shares it out
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = config.threads
    p.n_batch = p.n_ubatch = config.batch
    p.n_threads_http = 2 * config.slots + 8  # an open answer holds one; the rest look at slots and count tokens
    p.slot_prompt_similarity = 0.95
    p.cache_prompt = config.reuse_prompts
    p.cache_idle_slots = config.reuse_prompts
    p.cache_ram_mib = config.cache_ram_mib if config.reuse_prompts else 0
    if not config.reuse_prompts:
        p.n_ctx_checkpoints = 0  # states of finished prompts, kept for models with windows or recurrent layers
    p.prefill_assistant = False  # a last message of the assistant is history to answer, not a sentence to go on with
    p.ui = False
    p.cors_origins = ""
    p.api_keys = [config.key]
    p.endpoint_metrics = p.endpoint_slots = True
    p.verbosity = 1  # faults only: the reason of a failed load; nobody listens any more when requests come
    if config.gpu_layers is not None:
        p.n_gpu_layers = config.gpu_layers
        p.fit_params = False
    if sum(1 for layers in config.split if layers) > 0:
        p.tensor_split = [float(layers) for layers in config.split] + [0.0] * (len(p.tensor_split) - len(config.split))
    if config.vision is not None:
        p.mmproj.path = config.vision
    if config.adapters:
        p.lora_adapters = [_adapter(x, path) for path in config.adapters]
    if config.embeddings:
        p.embedding = True
        p.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    if config.socket is None:
        p.hostnames, p.port = ["127.0.0.1"], 0
    else:
        p.hostnames = [config.socket]
    return x.Server(p)


def _adapter(x: Any, path: str) -> xllamacpp.CommonAdapterLoraInfo:
    lora = x.CommonAdapterLoraInfo()
    lora.path, lora.scale = path, 0.0  # every request says its own scales
    return lora


@contextmanager
def _ending_with_the_pipe() -> Iterator[None]:
    """Inside, the end of stdin ends the process: llama.cpp keeps Python's lock while it loads, a signal gets through.

    Only Linux has this; elsewhere an orphan ends when it has loaded.
    """
    if sys.platform != "linux":
        yield
        return
    import fcntl

    signal.signal(signal.SIGIO, signal.SIG_DFL)  # whose default is to end the process
    flags = fcntl.fcntl(0, fcntl.F_GETFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC)
    yield
    fcntl.fcntl(0, fcntl.F_SETFL, flags)


def _flush_log() -> None:
    """Wait until llama.cpp's log, which a thread of its own writes, has said why a load failed."""
    import xllamacpp

    try:
        library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
        log, flush = library._Z15common_log_mainv, library._Z16common_log_flushP10common_log
    except (AttributeError, OSError):
        time.sleep(_LOG_SETTLES)
        return
    log.restype, flush.restype, flush.argtypes = ctypes.c_void_p, None, [ctypes.c_void_p]
    flush(log())


def _confined(config: ChildConfig, *, gpu: bool, network: bool) -> Guards:
    files = [config.model, *config.adapters, *([config.vision] if config.vision else [])]
    home = None if config.socket is None else Path(config.socket).parent
    return confine([Path(file) for file in files], home, gpu=gpu, network=network)


def main() -> None:
    """The process."""
    report = os.dup(1)
    os.dup2(2, 1)  # llama.cpp may print to stdout
    os.umask(0o077)
    kept = json.loads(sys.stdin.buffer.readline())
    guards = seclude(network=kept["network"]) if kept["confine"] else Guards()
    try:
        found = devices()
    except (ImportError, OSError) as error:
        _say(report, {"error": str(error)})
        os._exit(1)
    _say(report, {"devices": found})
    config = ChildConfig.parse(sys.stdin.buffer.readline())
    try:
        with _ending_with_the_pipe():
            if kept["confine"]:
                guards += _confined(config, gpu=bool(found), network=kept["network"])
            server = serve(config)
    except (RuntimeError, OSError) as error:
        _flush_log()
        _say(report, {"error": str(error)})
        os._exit(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    _say(report, {"ready": server.listening_address, "held": guards.held, "lacking": guards.lacking})
    os.close(report)
    sys.stdin.buffer.read()
    if config.socket is not None:
        with suppress(OSError):
            Path(config.socket).unlink()
            Path(config.socket).parent.rmdir()
    os._exit(0)  # leaving Python while a stream is open aborts


def _say(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()

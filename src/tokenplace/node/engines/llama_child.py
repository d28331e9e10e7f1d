"""llama.cpp in a process of its own: the only file that imports xllamacpp.

    python -P -m tokenplace.node.engines.llama_child

reads one line of JSON from stdin (a `ChildConfig`), loads the model, serves llama.cpp's own HTTP server on a unix
socket and writes one line of JSON to stdout: `{"ready": "ADDRESS"}` or `{"error": "…"}`. Then it turns stdout and
stderr off, so that nothing a person wrote can leave this way, and lives until stdin ends. stdin is a pipe that the
node holds open: however the node ends, `kill -9` included, the pipe ends with it. The socket's directory goes too.

A process of its own, because llama.cpp ends the process it lives in when something is badly wrong, and because two
engines in one process slow each other down to a third.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xllamacpp


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
        return cls(**{**raw, "adapters": tuple(raw["adapters"])})

    def __repr__(self) -> str:
        return f"ChildConfig(model={self.model!r}, slots={self.slots}, context={self.context})"


def serve(config: ChildConfig) -> xllamacpp.Server:
    """Load the model and serve it. Raises RuntimeError when llama.cpp cannot."""
    # libgomp reads it when xllamacpp is imported. Its workers spin while they wait for each other; with long spins
    # and another busy process on the cores, decoding falls to a tenth.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
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
    p.prefill_assistant = False  # a last message of the assistant is history to answer, not a sentence to go on with
    p.ui = False
    p.cors_origins = ""
    p.api_keys = [config.key]
    p.endpoint_metrics = p.endpoint_slots = True
    p.verbosity = 1  # faults only: the reason of a failed load; nobody listens any more when requests come
    if config.gpu_layers is not None:
        p.n_gpu_layers = config.gpu_layers
        p.fit_params = False
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


def main() -> None:
    """The process."""
    report = os.dup(1)
    os.dup2(2, 1)  # llama.cpp may print to stdout
    os.umask(0o077)
    config = ChildConfig.parse(sys.stdin.buffer.readline())
    try:
        with _ending_with_the_pipe():
            server = serve(config)
    except (RuntimeError, ImportError, OSError) as error:
        os.write(report, json.dumps({"error": str(error)}).encode() + b"\n")
        os._exit(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.write(report, json.dumps({"ready": server.listening_address}).encode() + b"\n")
    os.close(report)
    sys.stdin.buffer.read()
    if config.socket is not None:
        with suppress(OSError):
            Path(config.socket).unlink()
            Path(config.socket).parent.rmdir()
    os._exit(0)  # leaving Python while a stream is open aborts


if __name__ == "__main__":
    main()

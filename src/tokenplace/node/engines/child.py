"""The engine's child process from outside: started, spoken to over its pipes, ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tokenplace.errors import EngineError
from tokenplace.node.engines.confine import Guards
from tokenplace.node.engines.llama_child import ChildConfig
from tokenplace.node.guardrail import Device

SUN_PATH_MAX = 100
"""Characters of a unix socket's path that every system takes (Linux 107, macOS 103)."""

SOCKET = "llama.sock"
"""llama.cpp knows a unix socket by this ending."""

STOP_GRACE = 2.0
"""Seconds between closing the child's pipe and killing it."""

STDERR_KEPT = 8192
"""Bytes of the child's last words while it loads."""

_COMPLAINT = re.compile(r"[\d.]+ E (\w+ +)?\w+(\(\))?: (error loading model: )?(?P<cause>.+)")

Configure = Callable[[Sequence[Device], Path | None], ChildConfig]
"""(what the library can compute on, its socket) → how to run. May raise EngineError."""


@dataclass(slots=True)
class Child:
    """A child that serves. `address` is where, unless it is a unix socket in `home`."""

    process: Process
    config: ChildConfig
    address: str
    guards: Guards
    home: Path | None

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self.process.returncode is None

    async def end(self) -> None:
        """End it and remove its directory. Returns when the process is gone."""
        await _end(self.process)
        _leave(self.home)


async def start_child(name: str, configure: Configure, *, timeout: float, tcp: bool, confined: bool) -> Child:
    """A child that serves, after at most `timeout` seconds. Raises EngineError; then nothing of it is left."""
    home: Path | None = None
    try:
        home = None if tcp else _private_directory()
        # -P: a file called xllamacpp.py in the working directory is not the library.
        # A session of its own: Ctrl-C in the terminal is for the node, which lets its answers end first.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "tokenplace.node.engines.llama_child",
            stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        _leave(home)
        raise EngineError(f"The model {name} cannot be loaded: {error}") from error
    except BaseException:
        _leave(home)
        raise
    try:
        return await _loaded(name, process, configure, home, timeout=timeout, tcp=tcp, confined=confined)
    except BaseException:
        await _end(process)
        _leave(home)
        raise


async def _loaded(
    name: str,
    process: Process,
    configure: Configure,
    home: Path | None,
    *,
    timeout: float,
    tcp: bool,
    confined: bool,
) -> Child:
    stdin = cast("asyncio.StreamWriter", process.stdin)  # pipes all three, as start_child asked for
    stdout, stderr = cast("asyncio.StreamReader", process.stdout), cast("asyncio.StreamReader", process.stderr)
    config: ChildConfig | None = None
    fault: EngineError | None = None
    report: dict[str, Any] = {}
    try:
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
            last_words = group.create_task(_tail_of(stderr))
            stdin.write(json.dumps({"confine": confined, "network": tcp}).encode() + b"\n")
            report = _message(await stdout.readline())
            if "devices" in report:
                try:
                    config = configure([Device(**told) for told in report["devices"]], home)
                except EngineError as error:  # outside the group it is raised as it is
                    fault = error
                    stdin.close()
                    last_words.cancel()
                else:
                    stdin.write(config.line())
                    report = _message(await stdout.readline())
            if "ready" in report:
                last_words.cancel()  # its end cannot be waited for: under uvloop the child holds a second copy
    except TimeoutError:
        raise EngineError(
            f"{name} was not loaded after {timeout:.0f} s; use a smaller model or a faster disk."
        ) from None
    if fault is not None:
        raise fault
    if config is not None and "ready" in report:
        guards = Guards(tuple(report["held"]), tuple(report["lacking"]))
        return Child(process, config, str(report["ready"]), guards, home)
    reason = _reason(last_words.result()) or report.get("error") or _ending(await process.wait())
    raise EngineError(f"The model {name} cannot be loaded: {reason}")


def _message(line: bytes) -> dict[str, Any]:
    """One message of the child; an empty one where it ended before it said anything."""
    return cast("dict[str, Any]", json.loads(line)) if line else {}


def _private_directory() -> Path:
    """A new directory that only this user enters, with a path short enough for a unix socket in it."""
    home = Path(tempfile.mkdtemp(prefix="tp-"))
    if len(str(home / SOCKET)) > SUN_PATH_MAX:
        home.rmdir()
        home = Path(tempfile.mkdtemp(prefix="tp-", dir=f"{os.sep}tmp"))
    return home


def _leave(home: Path | None) -> None:
    if home is not None:
        shutil.rmtree(home, ignore_errors=True)


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

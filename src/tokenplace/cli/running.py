"""Running until told to stop, and logging: what every long-lived program has in common."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

import structlog


def run_loop(main: Coroutine[object, object, None]) -> None:
    """Run a program's main coroutine, on uvloop where there is one: it halves the price of a forwarded piece."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, suppress(asyncio.CancelledError):
        runner.run(main)  # cancelled: it was told to stop before it was warm


def settle() -> None:
    """Call once everything is built that stays as long as the program.

    The garbage collector passes over it from now on: looking through all modules again and again would hold up every
    stream for 50 ms each time, on a small board for much longer.
    """
    gc.collect()
    gc.freeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        from uvloop import new_event_loop
    except ModuleNotFoundError:  # Windows has none
        return asyncio.new_event_loop
    return new_event_loop


class Stop:
    """Whether Ctrl-C or SIGTERM has come."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._warming: asyncio.Task[object] | None = None

    async def wait(self) -> None:
        """Until it has come."""
        await self._event.wait()

    @contextmanager
    def warming(self) -> Iterator[None]:
        """While the block runs nothing is served yet: a stop then cancels the task that is in it."""
        self._warming = asyncio.current_task()
        try:
            yield
        finally:
            self._warming = None

    def come(self, number: int) -> None:
        """A signal is here. A second Ctrl-C does not wait for anything."""
        if self._event.is_set() and number == signal.SIGINT:
            sys.exit(130)
        self._event.set()
        if self._warming is not None:
            self._warming.cancel()


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM as something to wait for."""
    stop = Stop()
    loop = asyncio.get_running_loop()
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, lambda received, _: loop.call_soon_threadsafe(stop.come, received))
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Stdout:
    """Whatever stdout is at the moment: a live view puts itself in its place and keeps lines out of its picture."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


def configure_logs(level: str, *, for_programs: bool = False) -> None:
    """One JSON object per line on stdout, in the original's fields; on a terminal, unless `for_programs`, for eyes."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    logging.basicConfig(level=max(number, logging.WARNING), format="%(message)s", stream=sys.stderr)
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    final: list[structlog.typing.Processor]
    if sys.stdout.isatty() and not for_programs:
        final = [structlog.dev.ConsoleRenderer()]
    else:
        final = [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=shared + final,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Stdout())),
        cache_logger_on_first_use=True,
    )

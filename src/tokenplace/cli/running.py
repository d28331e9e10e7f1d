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

from tokenplace.errors import TokenPlaceError


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
    """Whether Ctrl-C or SIGTERM has come.

    SIGHUP is either the terminal that is closed, which stops a program as SIGTERM does, or an operator's word to one
    without a terminal that it should look at its files again: what to do then is its `reread`.
    """

    def __init__(self, *, has_terminal: bool = True) -> None:
        self.reread: Callable[[], None] | None = None
        self._has_terminal = has_terminal
        self._event = asyncio.Event()
        self._warming: asyncio.Task[object] | None = None

    @property
    def has_come(self) -> bool:
        """Whether it has."""
        return self._event.is_set()

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
        if number == _HANGUP and self.reread is not None and not self._has_terminal:
            self.reread()
            return
        if self._event.is_set() and number == signal.SIGINT:
            sys.exit(130)
        self._event.set()
        if self._warming is not None:
            self._warming.cancel()


@contextmanager
def stop_signal(*, has_terminal: bool | None = None) -> Iterator[Stop]:
    """Ctrl-C and SIGTERM as something to wait for; signals that would end a program at once end it in good order."""
    stop = Stop(has_terminal=_on_a_terminal() if has_terminal is None else has_terminal)
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:  # nohup wants it ignored
        numbers.append(_HANGUP)
    previous = {}
    for number in numbers:
        previous[number] = signal.signal(number, lambda received, _: loop.call_soon_threadsafe(stop.come, received))
    if _USER is not None:
        previous[_USER] = signal.signal(_USER, lambda *_: None)  # not SIG_IGN, which our children would inherit
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has neither
_USER: signal.Signals | None = getattr(signal, "SIGUSR1", None)


def _on_a_terminal() -> bool:
    try:
        return sys.stdin.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False


class _Stdout:
    """Whatever stdout is at the moment: a live view puts itself in its place and keeps lines out of its picture."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


def configure_logs(level: str, *, for_programs: bool = False) -> None:
    """One JSON object per line on stdout, in the original's fields; on a terminal, unless `for_programs`, for eyes.

    Raises TokenPlaceError for a level that is none.
    """
    number = logging.getLevelNamesMapping().get(level.strip().upper() or "INFO")
    if number is None:
        raise TokenPlaceError(f"TOKENPLACE_LOG_LEVEL: {level[:20]!r} is none of DEBUG, INFO, WARNING and ERROR.")
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

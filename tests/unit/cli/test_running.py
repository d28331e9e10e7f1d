"""Signals and the log of programs that run until they are told to stop."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tokenplace.cli.running import configure_logs, stop_signal
from tokenplace.errors import TokenPlaceError

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no such signals")


async def _heard(number: int) -> None:
    os.kill(os.getpid(), number)
    await asyncio.sleep(0)  # Python runs its handler between two steps of ours, the loop what that asked for after it
    await asyncio.sleep(0)


async def test_a_hangup_reads_again_and_stops_nothing() -> None:
    read: list[str] = []
    with stop_signal(has_terminal=False) as stop:
        stop.reread = lambda: read.append("files")
        await _heard(signal.SIGHUP)
        await _heard(signal.SIGHUP)
        assert read == ["files", "files"]
        assert not stop.has_come


async def test_a_program_whose_terminal_is_closed_stops_in_good_order() -> None:
    with stop_signal(has_terminal=True) as stop:
        stop.reread = lambda: None
        await _heard(signal.SIGHUP)
        assert stop.has_come


async def test_a_program_with_nothing_to_read_again_stops_in_good_order() -> None:
    with stop_signal(has_terminal=False) as stop:
        await _heard(signal.SIGHUP)
        assert stop.has_come


async def test_a_hangup_that_was_to_be_ignored_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signal(has_terminal=True) as stop:
            await _heard(signal.SIGHUP)
            assert not stop.has_come
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_signal_that_means_nothing_here_ends_nothing() -> None:
    with stop_signal() as stop:
        await _heard(signal.SIGUSR1)
        assert not stop.has_come


@pytest.mark.parametrize("level", ["foo", "42", "infos"])
def test_a_level_that_is_none_is_refused(level: str) -> None:
    with pytest.raises(TokenPlaceError, match="TOKENPLACE_LOG_LEVEL"):
        configure_logs(level)

"""What pauses a running node: the owner's policy, and signals (SIGUSR1 pauses, SIGUSR2 resumes)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import structlog

from tokenplace.node.hardware import Sensors
from tokenplace.node.policy import Hours, Policy, part_of, watch
from tokenplace.node.service import NodeService
from tokenplace.node.settings import NodeSettings

POLICY = "policy"
"""Under this name the policy pauses; the owner's own pauses are another matter."""

_log = structlog.get_logger("tokenplace.node")


def policy_of(settings: NodeSettings) -> Policy:
    """What the settings allow."""
    return Policy(
        hours=Hours.parse(settings.hours) if settings.hours.strip() else None,
        on_battery=settings.on_battery,
        max_cpu=part_of(settings.max_cpu),
        max_gpu=part_of(settings.max_gpu),
        max_temperature=settings.max_temperature,
    )


@asynccontextmanager
async def pausing(node: NodeService, settings: NodeSettings) -> AsyncIterator[None]:
    """While the block runs the policy is watched and the signals are heard."""
    policy = policy_of(settings)
    with _signals(node):
        if policy.idle:
            yield
            return
        sensors = Sensors()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(
                watch(policy, read=sensors.readings, pause=partial(_pause, node), resume=partial(_resume, node))
            )
            try:
                yield
            finally:
                watching.cancel()


def _pause(node: NodeService, reason: str) -> None:
    _log.info("node.paused", reason=reason)
    node.pause(reason, by=POLICY)


def _resume(node: NodeService) -> None:
    _log.info("node.resumed")
    node.resume(by=POLICY)


@contextmanager
def _signals(node: NodeService) -> Iterator[None]:
    """Windows has neither signal."""
    loop = asyncio.get_running_loop()
    wanted: dict[str, Callable[[], None]] = {
        "SIGUSR1": lambda: node.pause("by signal; SIGUSR2 or `tokenplace node resume` goes on"),
        "SIGUSR2": node.resume,
    }
    previous = {}
    for name, act in wanted.items():
        if hasattr(signal, name):
            number = getattr(signal, name)
            previous[number] = signal.signal(number, lambda *_, act=act: loop.call_soon_threadsafe(act))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

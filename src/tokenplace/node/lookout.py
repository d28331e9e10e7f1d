"""A node reads what its relays show: of others while nobody asks it anything, to say why; of itself, to notice lies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from tokenplace.errors import RelayUnreachable
from tokenplace.node.counts import Counts
from tokenplace.node.demand import ask_demand
from tokenplace.node.mirror import Mirror
from tokenplace.node.standing import QUIET, LinkStep, RelayState
from tokenplace.wire.ids import NodeId

EVERY = 60.0
"""Seconds between looks at the relays' lists."""

MIRROR_EVERY = 300.0
"""Seconds between looks at the card that relays show for this node."""

_TICK = 0.5
_log = structlog.get_logger("tokenplace.node")


async def look_around(
    relays: Sequence[RelayState],
    counts: Counts,
    *,
    me: NodeId,
    models: Callable[[], Sequence[str]],
    clock: Callable[[], float],
) -> None:
    """Keep `demand` of every connected relay fresh while this node waits for work. Cancelled by its owner."""
    asked = -EVERY
    while True:
        await asyncio.sleep(_TICK)
        now = clock()
        if counts.running or now - counts.last_asked < QUIET or now - asked < EVERY:
            continue
        asked = now
        for relay in relays:
            if relay.step is LinkStep.CONNECTED:
                try:
                    relay.demand = await ask_demand(relay.url, me, models())
                except RelayUnreachable as error:
                    relay.demand = None
                    _log.debug("demand.unknown", reason=error.message)


async def look_in_the_mirror(
    relays: Sequence[RelayState], mirror: Mirror, *, every: float = MIRROR_EVERY, first: float = 30.0
) -> None:
    """Keep `alarm` of every relay fresh, also of one without a link to us: there somebody may stand in our place.

    Cancelled by its owner.
    """
    await asyncio.sleep(first)
    while True:
        for relay in relays:
            try:
                alarm = await mirror.look(relay.url)
            except RelayUnreachable as error:
                _log.debug("mirror.unknown", reason=error.message)
                continue
            if alarm is not None and alarm is not relay.alarm:
                _log.error("node.alarm", relay=relay.url, alarm=alarm.name.lower(), advice=alarm.value)
            relay.alarm = alarm
        await asyncio.sleep(every)

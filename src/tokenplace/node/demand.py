"""What a relay's public list says about the demand: whether it shows this node, and what others are asked for.

The list is what anybody may read at `/api/v1/relay/server-nodes`. It is read only while this node waits for work, to
tell its owner why. What a relay says is a stranger's word: it is bounded, and only what can be printed is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from tokenplace.node.public import read_public
from tokenplace.wire import routes
from tokenplace.wire.ids import NodeId

MAX_LIST = 2 * 1024 * 1024
"""Bytes of a list that are read."""

_SHOWN = 3
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Demand:
    """One relay's list, seen by one node."""

    listed: bool
    """Whether this node is on it."""
    set_aside: bool
    """Whether the relay sends this node nothing for a while, because answers failed."""
    elsewhere: tuple[str, ...]
    """Models that others are answering with now and this node does not have, the most asked for first."""
    rivals: int
    """Other nodes with a free slot and one of this node's models."""


def read_demand(content: Any, me: NodeId, models: Collection[str]) -> Demand:
    """What the parsed list says. Whatever is not of its shape is passed over."""
    nodes = content.get("nodes") if isinstance(content, dict) else None
    listed = set_aside = False
    rivals = 0
    asked: Counter[str] = Counter()
    for node in nodes if isinstance(nodes, list) else ():
        if not isinstance(node, dict):
            continue
        served = [name for name in _list(node.get("models")) if isinstance(name, str)]
        slots, free, queued = (_count(node.get(key)) for key in ("slots", "free", "queued"))
        if node.get("node") == me:
            listed = True
            set_aside = node.get("breaker") == "open"
            continue
        rivals += free > 0 and any(name in models for name in served)
        work = max(0, slots - free) + queued
        for name in served:
            if work and name not in models and name.isprintable():
                asked[name[:_LONGEST_NAME]] += work
    return Demand(listed, set_aside, tuple(name for name, _ in asked.most_common(_SHOWN)), rivals)


async def ask_demand(relay: str, me: NodeId, models: Collection[str]) -> Demand:
    """Read a relay's list, with the proxies this machine is set up for. Raises RelayUnreachable."""
    what = f"{relay} gives no list of its nodes"
    _, content = await read_public(relay + routes.SERVER_NODES, most=MAX_LIST, what=what)
    return read_demand(content, me, models)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6 else 0

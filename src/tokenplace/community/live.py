"""Joins what an operator wrote down with what is connected at this moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from tokenplace.community.times import show_time
from tokenplace.errors import WireError
from tokenplace.wire.ids import NodeId, parse_node_id

ONLINE, DRAINING, OFFLINE = "online", "draining", "offline"


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A connected node as the directory may show it; `connected` is in seconds."""

    id: NodeId
    models: tuple[str, ...]
    slots: int
    free: int
    connected: float
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Live:
    """Who is connected now, and by which names (host, with a port where there is one) this relay is known."""

    nodes: Mapping[NodeId, LiveNode] = field(default_factory=dict)
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Named:
    """The nodes (by id) and relays (by host and port) that an entry of the directory names."""

    nodes: tuple[NodeId, ...] = ()
    relays: tuple[str, ...] = ()


def named_in(entry: Mapping[str, Any]) -> Named:
    """What an entry names: `node`, `nodes`, an endpoint of type `node` with an id, one of type `relay` with a URL."""
    several = entry.get("nodes")
    words: list[object] = [entry.get("node"), *(several if isinstance(several, list) else ())]
    relays = []
    for endpoint in _mappings(entry.get("endpoints")):
        if endpoint.get("type") == "node":
            words.append(endpoint.get("url"))
        elif endpoint.get("type") == "relay":
            relays.append(_authority(endpoint.get("url")))
    return Named(
        tuple(dict.fromkeys(node for node in map(_node, words) if node)), tuple(relay for relay in relays if relay)
    )


def joined(shown: Mapping[str, Any], named: Named, live: Live, now: datetime) -> dict[str, Any]:
    """An entry with its live status. One that names nothing this relay can see stays as it was written."""
    entry = dict(shown)
    if named.nodes:
        there = [live.nodes[node] for node in named.nodes if node in live.nodes]
        entry["nodes"] = list(named.nodes)
    elif live.names.intersection(named.relays):
        entry |= {"status": ONLINE, "live": _seen(live.nodes.values(), now)}
        return entry
    else:
        return entry
    entry["status"] = OFFLINE if not there else DRAINING if all(node.draining for node in there) else ONLINE
    entry["live"] = _seen(there, now)
    return entry


def _seen(nodes: Iterable[LiveNode], now: datetime) -> dict[str, Any]:
    there = list(nodes)
    longest = max((node.connected for node in there), default=None)
    return {
        "connected": len(there),
        "slots": sum(node.slots for node in there),
        "free": sum(node.free for node in there),
        "models": sorted({model for node in there for model in node.models}),
        "since": None if longest is None else show_time(now - timedelta(seconds=longest)),
    }


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _node(word: object) -> NodeId | None:
    if not isinstance(word, str):
        return None
    try:
        return parse_node_id(word)
    except WireError:
        return None


def _authority(url: object) -> str | None:
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url.strip())
        standard = {"http": 80, "https": 443}.get(parts.scheme)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host:
        return None
    return host.lower() if port in (None, standard) else f"{host.lower()}:{port}"

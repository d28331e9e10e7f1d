"""The two lists of providers that an operator writes: `providers.json` and `server_providers.yaml`.

An entry that lacks what it must have is left out and counted; only a file that is no list at all is a fault.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from tokenplace.community.live import Live, Named, joined, named_in
from tokenplace.community.times import show_time

MOST_ENTRIES = 2000
"""Entries of one file that are shown; a list for people is shorter."""


class Unreadable(ValueError):
    """The whole file is no list of providers; the text says why."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One entry as it is shown, and what it names."""

    shown: Mapping[str, Any]
    named: Named


@dataclass(frozen=True, slots=True)
class Listing:
    """One file: its entries, what it says of itself, and how many entries were left out."""

    providers: tuple[Provider, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    skipped: int = 0

    def answer(self, live: Live, now: datetime, limit: int | None = None, offset: int = 0) -> dict[str, Any]:
        """The answer of the route: one page of entries with their live status."""
        end = len(self.providers) if limit is None else offset + limit
        answer: dict[str, Any] = {
            "object": "list",
            "data": [joined(each.shown, each.named, live, now) for each in self.providers[offset:end]],
            "metadata": dict(self.metadata),
        }
        if end < len(self.providers):
            answer["next_offset"] = end
        return answer


NO_DIRECTORY = Listing(metadata={"updated_at": None})


def read_directory(content: bytes) -> Listing:
    """`providers.json`. Raises Unreadable."""
    try:
        raw = json.loads(content, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is not JSON ({type(error).__name__})") from None
    if not isinstance(raw, dict):
        raise Unreadable("its root is no object")
    updated = raw.get("updated")
    return _listing(raw, {"updated_at": updated if isinstance(updated, str) else None}, _directory_entry)


def read_registry(content: bytes) -> Listing:
    """`server_providers.yaml`. Raises Unreadable."""
    import yaml  # only a relay with a registry pays for it

    try:
        raw = _plain(yaml.safe_load(content) or {})
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(f"it is not YAML ({type(error).__name__})") from None
    if not isinstance(raw, dict):
        raise Unreadable("its root is no mapping")
    metadata = raw.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Unreadable("its metadata is no mapping")
    return _listing(raw, metadata, _registry_entry)


def _listing(raw: Mapping[str, Any], metadata: Mapping[str, Any], read: Callable[[Any], dict[str, Any]]) -> Listing:
    entries = raw.get("providers") or []
    if not isinstance(entries, list):
        raise Unreadable("its providers are no list")
    providers = []
    for entry in entries[:MOST_ENTRIES]:
        try:
            providers.append(Provider(read(entry), named_in(entry)))
        except (ValueError, AttributeError):
            continue
    return Listing(tuple(providers), metadata, len(entries) - len(providers))


def _directory_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    must = {name: entry.get(name) for name in ("id", "name", "region")}
    if not all(isinstance(value, str) and value for value in must.values()):
        raise ValueError
    latency, status, contact, notes = (entry.get(name) for name in ("latency_ms", "status", "contact", "notes"))
    return {
        **must,
        "latency_ms": latency if _is_number(latency) else None,
        "status": status if isinstance(status, str) and status else "unknown",
        "contact": contact if isinstance(contact, dict) else {},
        "capabilities": _texts(entry.get("capabilities")),
        "notes": notes if isinstance(notes, str) else None,
        "endpoints": list(_endpoints(entry.get("endpoints"))),
    }


def _registry_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: entry.get(name) for name in ("id", "name", "region", "status")}
    if not all(_is_word(value) for value in shown.values()):
        raise ValueError
    endpoints = entry.get("endpoints") or []
    if not (
        isinstance(endpoints, list)
        and all(isinstance(each, dict) and {"type", "url"} <= set(each) for each in endpoints)
    ):
        raise ValueError
    optional = {name: entry[name] for name in ("description", "capabilities", "contact", "notes") if name in entry}
    return {**shown, "endpoints": endpoints, **optional}


def _endpoints(value: object) -> Iterable[dict[str, str]]:
    for each in value if isinstance(value, list) else ():
        if isinstance(each, dict):
            kind, url = (word.strip() if isinstance(word := each.get(name), str) else "" for name in ("type", "url"))
            if kind and url:
                yield {"type": kind, "url": url}


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_word(value: object) -> bool:
    """YAML makes numbers of ids such as 7; a list is no id."""
    return isinstance(value, str | int | float) and value != ""


def _plain(value: Any) -> Any:
    """What YAML gave, as JSON can carry it: times become text, keys too. Raises ValueError for what cannot."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case datetime():
            return show_time(value) if value.tzinfo else value.isoformat()
        case date():
            return value.isoformat()
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise ValueError("a value that JSON does not have")

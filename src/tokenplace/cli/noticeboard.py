"""The notice board in front of a relay's guest: joins the community room with who is connected."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import structlog

from tokenplace.community.allowance import Allowance
from tokenplace.community.board import Board, Known, Screen
from tokenplace.community.counts import Counts
from tokenplace.community.files import Files
from tokenplace.community.http import Noticeboard
from tokenplace.community.live import Live, LiveNode
from tokenplace.community.settings import CommunitySettings
from tokenplace.relay.address import client_address
from tokenplace.relay.asgi import App, Scope, header
from tokenplace.relay.policy import nobody
from tokenplace.relay.roster import Node, Roster
from tokenplace.wire.ids import ModelId

_log = structlog.get_logger("tokenplace.community")


def noticeboard(
    otherwise: App,
    roster: Roster,
    *,
    names: Sequence[str],
    screen: Screen | None = None,
    canonical: Callable[[str], str] = str,
    listed: Collection[str] = (),
    holder: Callable[[str], str | None] = nobody,
) -> tuple[App, Callable[[], bytes]]:
    """The notice board that the settings describe, in front of `otherwise`, and its lines for /metrics.

    `canonical` follows aliases, `listed` are models that are known though nobody serves them, `holder` says
    whose API key a header shows: one key is one voter. Without a board, `otherwise` itself.
    """
    settings = CommunitySettings()
    if not settings.board:
        return otherwise, bytes
    board = Board(Files(settings, _told), screen=screen or _unread)
    counts = Counts()
    app = Noticeboard(
        board,
        otherwise,
        live=lambda: live(roster, names, time.monotonic()),
        known=_known(roster, canonical, listed),
        address=lambda scope: client_address(scope).key,
        voter=lambda scope: _voter(scope, holder),
        allowance=Allowance(settings.hourly, time.monotonic),
        counts=counts,
    )
    return app, counts.render


def live(roster: Iterable[Node], names: Iterable[str], now: float) -> Live:
    """Who is connected at this moment, as the directory shows it."""
    there = {
        node.id: LiveNode(
            node.id,
            tuple(model.id for model in node.card.body.models),
            node.slots,
            max(0, node.free),
            now - node.since,
            node.draining,
        )
        for node in roster
        if node.end is not None
    }
    return Live(there, frozenset(name.lower() for name in names))


def _known(roster: Roster, canonical: Callable[[str], str], listed: Collection[str]) -> Known:
    def known(name: str) -> str | None:
        model = ModelId(canonical(name))
        return model if model in listed or model in roster.models() else None

    return known


def _voter(scope: Scope, holder: Callable[[str], str | None]) -> str:
    """One key is one voter, wherever it votes from; a key that nobody handed out is only somebody's address."""
    key = holder(header(scope, b"authorization") or "")
    return client_address(scope).key if key is None else f"key {key}"


def _unread(_: Sequence[str]) -> None:
    """A blind relay has no phrases to look for; comments wait for its operator all the same."""


def _told(path: Path, what: str) -> None:
    _log.warning("community.file", file=path.name, problem=what)

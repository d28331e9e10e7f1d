"""Which nodes a client believes. A relay shows cards; only a signature by the node's identity makes one true.

A node id is the fingerprint of the identity key, so a relay cannot put its own key behind a known id. What it
could do is to show nodes of its own; so people may pin the ids they trust, trust somebody who vouches for nodes,
and see of every other whether it was met before.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tokenplace.errors import UntrustedCard
from tokenplace.sealing.identity import verify_card, verify_voucher
from tokenplace.wire.card import Card, CardBody
from tokenplace.wire.ids import NodeId
from tokenplace.wire.voucher import Voucher

_REMEMBERED = 2000
_CHECKED_CARDS = 512


class Standing(StrEnum):
    """How well a client knows a node."""

    PINNED = "pinned"
    VOUCHED = "vouched"
    KNOWN = "known"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Believed:
    """A card that was checked."""

    body: CardBody
    standing: Standing


class Memory:
    """The nodes met before, with the newest card of each; kept in a file when there is one."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._sequences: dict[NodeId, int] = {}
        if file is not None:
            try:
                raw = json.loads(file.read_text())
                self._sequences = {NodeId(str(node)): int(sequence) for node, sequence in raw["nodes"].items()}
            except (OSError, ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError):
                self._sequences = {}  # an unreadable memory is an empty one: nodes show as new again

    def sequence(self, node: NodeId) -> int | None:
        """The newest card's number, or None for a node never met."""
        return self._sequences.get(node)

    def meet(self, node: NodeId, sequence: int) -> None:
        """Remember a node; the ones not met for longest are forgotten."""
        known = self._sequences.pop(node, None)
        self._sequences[node] = sequence if known is None else max(known, sequence)
        while len(self._sequences) > _REMEMBERED:
            del self._sequences[next(iter(self._sequences))]
        if self._file is not None and self._sequences[node] != known:
            self._save(self._file)

    def _save(self, file: Path) -> None:
        beside = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside.write_text(json.dumps({"nodes": self._sequences}))
            beside.replace(file)
        except OSError:  # a full or read-only disk must not cost the answer: we remember until the program ends
            with suppress(OSError):
                beside.unlink()


class Trust:
    """The client's rules. With pins or issuers of vouchers, nobody else is asked; without, everybody whose card holds.

    `issuers` are the ids of those whose vouchers are believed.
    """

    def __init__(
        self,
        pins: Iterable[NodeId] = (),
        memory: Memory | None = None,
        *,
        issuers: Iterable[NodeId] = (),
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._pins = frozenset(pins)
        self._issuers = frozenset(issuers)
        self._wall_ms = wall_ms
        self._vouched: dict[NodeId, int] = {}
        self._memory = memory or Memory()
        self._checked: dict[str, CardBody] = {}

    @property
    def named(self) -> frozenset[NodeId]:
        """The nodes that are pinned or vouched for now."""
        return self._pins | {node for node, until in self._vouched.items() if until > self._wall_ms()}

    @property
    def selective(self) -> bool:
        """Whether only named nodes may be asked."""
        return bool(self._pins or self._issuers)

    def admits(self, node: NodeId) -> bool:
        """Whether a node may be asked at all, as far as its id tells."""
        return not self.selective or self._standing(node) in (Standing.PINNED, Standing.VOUCHED)

    def vouch(self, text: str) -> Voucher:
        """Believe a voucher. Raises UntrustedCard: not signed, expired, or by nobody you believe; WireError: none."""
        voucher = verify_voucher(text, self._issuers, now_ms=self._wall_ms())
        for node in voucher.nodes:
            self._vouched[node] = max(voucher.expires_ms, self._vouched.get(node, 0))
        return voucher

    def _standing(self, node: NodeId) -> Standing:
        if node in self._pins:
            return Standing.PINNED
        if self._vouched.get(node, 0) > self._wall_ms():
            return Standing.VOUCHED
        return Standing.NEW if self._memory.sequence(node) is None else Standing.KNOWN

    def check(self, card: Card) -> Believed:
        """Believe a card, or raise UntrustedCard: not signed, not of those named, or older than one seen before."""
        body = self._checked.get(card.text)
        if body is None:
            body = verify_card(card, None)
            if len(self._checked) >= _CHECKED_CARDS:
                self._checked.clear()
            self._checked[card.text] = body
        if not self.admits(body.node):
            raise UntrustedCard(f"The node {body.node} is neither one of those you pinned nor vouched for.")
        newest = self._memory.sequence(body.node)
        if newest is not None and body.sequence < newest:
            raise UntrustedCard("The relay shows an old card of this node.")
        return Believed(body, self._standing(body.node))

    def met(self, body: CardBody) -> None:
        """An answer of this node was opened: remember it."""
        self._memory.meet(body.node, body.sequence)

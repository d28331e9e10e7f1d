"""Which modern node a classic key belongs to, learnt from the cards. Pure.

A key stays with the node that showed it first, also after the node has rotated it (requests under way are sealed to
the old one), and for an hour after that node left. A card proves the node's identity but not that the key in it is the
node's own; so nobody takes over a key by writing it on a card.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tokenplace.relay.classic.bounds import ClassicTiming
from tokenplace.relay.classic.polling import Key
from tokenplace.relay.roster import Node, Roster
from tokenplace.wire.classic import ClassicCard
from tokenplace.wire.ids import NodeId

_REMEMBERED = 8192
_PEM = b"-----BEGIN "


@dataclass(slots=True)
class CardKey:
    """A classic key that stood on a card."""

    key: Key
    key_id: str
    node: NodeId
    seen: float
    """When the node was last there with it."""


class CardKeys:
    """Every classic key of the nodes that are or were lately connected."""

    def __init__(self, roster: Roster, timing: ClassicTiming, held: Callable[[Key], bool]) -> None:
        """`held` says whether a polling node has registered the key: then no card can have it."""
        self._roster = roster
        self._timing = timing
        self._held = held
        self._keys: OrderedDict[Key, CardKey] = OrderedDict()
        self._present: list[tuple[CardKey, str]] = []
        self._scanned = float("-inf")

    def holder(self, key: Key, now: float) -> CardKey | None:
        """Who showed that key first, connected or not."""
        if key not in self._keys:
            self._scan(now)
        return self._keys.get(key)

    def present(self, now: float) -> list[tuple[CardKey, str]]:
        """The current keys of the nodes that clients may be sent to, each with its text."""
        self._scan(now)
        return [(known, text) for known, text in self._present if _listed(self._roster.get(known.node))]

    def tick(self, now: float) -> None:
        """Learn keys, also those that nobody asks for before they are rotated."""
        self._scan(now)

    def _scan(self, now: float) -> None:
        if now - self._scanned < self._timing.scan and self._present:
            return
        self._scanned = now
        self._present = []
        for node in self._roster:
            card = ClassicCard.of(node.card.body.extra) if node.end is not None else None
            if card is None or not card.key.isascii():
                continue
            key = key_of(card.key)
            known = self._keys.get(key)
            if known is None or (known.node != node.id and now - known.seen >= self._timing.former):
                if self._held(key):
                    continue
                known = self._keys[key] = CardKey(key, card.key_id, node.id, now)
            if known.node == node.id:
                known.seen = now
                self._keys.move_to_end(key)
                if _listed(node):
                    self._present.append((known, card.key))
        while self._keys and (len(self._keys) > _REMEMBERED or self._old(next(iter(self._keys.values())), now)):
            self._keys.popitem(last=False)

    def _old(self, known: CardKey, now: float) -> bool:
        return now - known.seen >= self._timing.former and self._roster.get(known.node) is None


def _listed(node: Node | None) -> bool:
    return node is not None and node.listed


def key_of(text: str) -> Key:
    """One short name for a key, the same for its PEM text and for the base64 of that."""
    data = text.strip().encode("utf-8", "surrogatepass")
    if not data.startswith(_PEM):
        try:
            inner = base64.b64decode(data, validate=True).strip()
        except (ValueError, binascii.Error):
            inner = b""
        data = inner if inner.startswith(_PEM) else data
    return Key(hashlib.sha256(data).hexdigest())

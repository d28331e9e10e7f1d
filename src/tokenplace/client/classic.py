"""Nodes that open requests of the original's protocol, as their cards tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from tokenplace.client.door import Directory, Door
from tokenplace.client.trust import Trust
from tokenplace.errors import UntrustedCard, WireError
from tokenplace.sealing.rsa import ClassicPublicKey
from tokenplace.wire.classic import ClassicCard
from tokenplace.wire.ids import ModelId, NodeId

MOST_CLASSIC = 64
"""Nodes that are looked at to find a key."""


@dataclass(frozen=True)
class ClassicNode:
    """A connected node and its classic key, which its card, checked, shows."""

    node: NodeId
    key: ClassicPublicKey
    previous: tuple[str, ...]
    """Ids of keys that it says it still opens with."""
    models: frozenset[ModelId]
    pkcs1v15: bool

    @property
    def key_id(self) -> str:
        """Reckoned from the key: what a card says of that is nobody's to believe."""
        return self.key.key_id.hex()

    @cached_property
    def fingerprint(self) -> str:
        """Hex of the whole SHA-256 of which the key's id is the beginning."""
        return hashlib.sha256(self.key.der).hexdigest()


def classic_nodes(found: Iterable[tuple[Door, Directory]], trust: Trust) -> list[ClassicNode]:
    """Those among the nodes of some directories whose cards hold and show a key, each once, in their order."""
    nodes: dict[NodeId, ClassicNode] = {}
    for _, directory in found:
        for listing in directory.listings:
            try:
                body = trust.check(listing.card).body
                card = ClassicCard.of(body.extra)
                if card is not None:
                    key = ClassicPublicKey.parse(card.key)
                    models = frozenset(model.id for model in body.models)
                    made = ClassicNode(body.node, key, card.previous, models, card.pkcs1v15)
                    nodes.setdefault(body.node, made)
            except (UntrustedCard, WireError):
                continue
    return list(nodes.values())

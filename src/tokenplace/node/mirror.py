"""What relays show under this node's id: whether it is what this node said.

A relay shows a node only after the node has answered its challenge, and clients believe only cards that its identity
signed. So a card under our id that we never made means one of two things, and the owner must know of both: somebody
else holds this node's identity key, or a relay shows forged cards (which no client believes). Each node looks through
all its relays, so that one relay alone cannot hide it.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from http import HTTPStatus

from tokenplace.errors import RelayUnreachable, UntrustedCard, WireError
from tokenplace.node.public import read_public
from tokenplace.sealing.identity import verify_card
from tokenplace.wire import routes
from tokenplace.wire.card import Card
from tokenplace.wire.ids import NodeId

_REMEMBERED = 256
_MAX_ANSWER = 1024 * 1024


class Alarm(StrEnum):
    """What may be wrong, with what the owner should do."""

    STOLEN = (
        "another machine serves under this node's identity; if it is not yours, stop this node, delete its "
        "identity and tell the people who pinned it"
    )
    FORGED = "this relay shows a card under this node's id that the node never signed; do not trust this relay"


class Mirror:
    """The cards of this life of a node, and what to make of one that a relay shows."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._cards: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._first: int | None = None

    def made(self, card: Card) -> None:
        """A card of ours is out."""
        self._cards.append(card.signed)
        if self._first is None:
            self._first = card.body.sequence

    def judge(self, card: Card) -> Alarm | None:
        """What is wrong with a card that a relay shows for us. One of an earlier life is only old."""
        try:
            body = verify_card(card, self._me)
        except UntrustedCard:
            return Alarm.FORGED
        earlier = self._first is not None and body.sequence < self._first
        return None if earlier or card.signed in self._cards else Alarm.STOLEN

    async def look(self, relay: str) -> Alarm | None:
        """Ask a relay for the card it shows for us. Raises RelayUnreachable."""
        what = f"{relay} does not tell what it shows for this node"
        params = {routes.NODE_PARAM: self._me, routes.LIMIT_PARAM: "1"}
        status, content = await read_public(relay + routes.NODES, params, most=_MAX_ANSWER, what=what)
        if status != HTTPStatus.OK:
            raise RelayUnreachable(f"{what} ({status}).")
        nodes = content.get("nodes") if isinstance(content, dict) else None
        for shown in nodes if isinstance(nodes, list) else ():
            try:
                card = Card.parse(shown["card"])
            except (WireError, KeyError, TypeError):
                return Alarm.FORGED
            if (alarm := self.judge(card)) is not None:
                return alarm
        return None

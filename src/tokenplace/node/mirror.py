"""What relays show under this node's id: whether it is what this node said.

A relay shows a node only after the node has answered its challenge, and clients believe only cards that its identity
signed. So a card under our id that we never made means one of two things, and the owner must know of both: somebody
else holds this node's identity key, or a relay shows forged cards (which no client believes). Each node looks through
all its relays, so that one relay alone cannot hide it.
"""

from __future__ import annotations

import json
from collections import deque
from enum import StrEnum

import httpx2 as httpx

from tokenplace.errors import RelayUnreachable, UntrustedCard, WireError
from tokenplace.sealing.identity import verify_card
from tokenplace.wire import routes
from tokenplace.wire.card import Card
from tokenplace.wire.ids import NodeId

_PATIENCE = httpx.Timeout(10.0)
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
        content = await _read(relay + routes.NODES, {routes.NODE_PARAM: self._me, routes.LIMIT_PARAM: "1"})
        nodes = content.get("nodes") if isinstance(content, dict) else None
        for shown in nodes if isinstance(nodes, list) else ():
            try:
                card = Card.parse(shown["card"])
            except (WireError, KeyError, TypeError):
                return Alarm.FORGED
            if (alarm := self.judge(card)) is not None:
                return alarm
        return None


async def _read(url: str, params: dict[str, str]) -> object:
    body = b""
    try:
        async with (
            httpx.AsyncClient(timeout=_PATIENCE) as client,
            client.stream("GET", url, params=params) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise RelayUnreachable(f"{url} answers {response.status_code}.")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER:
                    raise RelayUnreachable("The relay's answer is too long to read.")
        return json.loads(body)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        raise RelayUnreachable(f"{url} cannot be read ({type(error).__name__}).") from error

"""How many connections each address has, so that no single one can have them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tokenplace.relay.address import Client, client_address

Peer = tuple[str, int] | None
"""Address and port of a connection's far end, where the server could tell."""

_SHARE = 8
_LEAST = 64


def share_of(connections: int) -> int:
    """How many of them one address may have: an eighth, for a whole university may come from one; but some."""
    return max(_LEAST, connections // _SHARE)


def on_this_machine(client: Client) -> bool:
    """Whether a client is on this very machine, or behind a proxy that is."""
    return client.ip is None or client.is_here


class Crowd:
    """The connections of one server, by address; of IPv6, by /64. `spared` says whose are not counted."""

    def __init__(self, most: int, spared: Callable[[Client], bool] = on_this_machine) -> None:
        self._most = most
        self._spared = spared
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def came(self, peer: Peer) -> bool:
        """Count one more, until it `went`. False where it is one too many, which is not counted."""
        client = client_address({"client": peer, "headers": ()})
        if self._spared(client):
            return True
        if self._counts[client.key] >= self._most:
            return False
        self._counts[client.key] += 1
        return True

    def went(self, peer: Peer) -> None:
        """Count one less."""
        client = client_address({"client": peer, "headers": ()})
        if self._spared(client):
            return
        self._counts[client.key] -= 1
        if self._counts[client.key] <= 0:
            del self._counts[client.key]

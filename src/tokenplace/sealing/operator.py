"""An operator's order to a node: authenticated by a token that both know and that the order does not show.

The order travels inside the sealed exchange, so that no relay sees it. The node it goes to may be a stranger's all the
same (a gateway does not know which nodes are its operator's), and what a stranger gets must be worth nothing: the order
names the node and the moment, and guessing the token from it costs 16 MiB and some 50 ms for each guess (scrypt, RFC
7914). A token of 16 random bytes or more cannot be guessed at all: `openssl rand -hex 32`.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cached_property

from tokenplace.errors import Refused
from tokenplace.wire.ids import NodeId
from tokenplace.wire.limits import TIMING, Timing

_SALT = b"tp/2 operator"
_COST, _BLOCK = 2**14, 8
_PREFIX = b"tp/2 rotate\0"


class Operator:
    """The holder of one operator's token, at either end."""

    def __init__(self, token: str, timing: Timing = TIMING) -> None:
        if not token.strip():
            raise ValueError("An operator's token is not blank.")
        self._token = token.strip()
        self._skew_ms = int(timing.clock_skew * 1000)

    def __repr__(self) -> str:
        return "<Operator>"

    def is_token(self, shown: str) -> bool:
        """Whether this is the token, in a time that says nothing about it."""
        return hmac.compare_digest(_digest(shown), _digest(self._token))

    def order(self, node: NodeId, now_ms: int) -> str:
        """The order to `node` to rotate its keys, at `now_ms`. The first costs 50 ms: not on an event loop."""
        return hmac.digest(self._stretched, _PREFIX + now_ms.to_bytes(8, "big") + node.encode(), "sha256").hex()

    def obey(self, order: str, node: NodeId, time_ms: int, now_ms: int) -> None:
        """Check an order that came to `node`. Raises Refused: another token, another node or another time.

        That an order comes twice is for the exchange to notice, which refuses whatever was opened before.
        """
        recent = abs(now_ms - time_ms) <= self._skew_ms
        known = hmac.compare_digest(order.encode(errors="replace"), self.order(node, time_ms if recent else 0).encode())
        if not (known and recent):
            raise Refused("This order is not from this node's operator, or not of now.", code="operator_token_invalid")

    @cached_property
    def _stretched(self) -> bytes:
        return hashlib.scrypt(
            self._token.encode("utf-8", "surrogateescape"), salt=_SALT, n=_COST, r=_BLOCK, p=1, dklen=32
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

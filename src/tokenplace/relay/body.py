"""A request's body, with memory for every piece taken before the piece is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from tokenplace.errors import QueueFull, Refused, TooLarge, WireError
from tokenplace.relay.asgi import ClientGone, Receive, Scope, header
from tokenplace.relay.fairness import Shares

PATIENCE = 120.0
"""Seconds a body may take: 8 MiB at half a megabit, and no more for one that trickles."""


class Memory(Protocol):
    """What bodies take their memory from. A relay's broker is one."""

    def reserve(self, size: int, client: str = "") -> None:
        """Take memory. Raises Refused when there is none to spare for this client."""

    def release(self, size: int, client: str = "") -> None:
        """Give memory back."""


def _receiving() -> Refused:
    return QueueFull("As many requests are being received here as memory allows.", retry_after=2)


class OwnMemory:
    """So many bytes, shared fairly between clients. `full` makes what is raised where there are none to spare."""

    def __init__(self, shares: Shares, full: Callable[[], Refused] = _receiving) -> None:
        self._shares = shares
        self._full = full

    @property
    def held(self) -> int:
        """Bytes that are taken."""
        return self._shares.held

    def reserve(self, size: int, client: str = "") -> None:
        """Take memory. Raises what `full` makes."""
        if not self._shares.take(client, size):
            raise self._full()

    def release(self, size: int, client: str = "") -> None:
        """Give memory back."""
        self._shares.give(client, size)


async def read_body(
    scope: Scope,
    receive: Receive,
    what: str,
    most: int,
    memory: Memory,
    client: str,
) -> bytes:
    """The body, of at most `most` bytes; `what` is how errors call it. Its memory is the caller's to release.

    It is taken from `memory` for `client`. When this raises, what was taken is released: Refused for a body that does
    not arrive, TooLarge, WireError, ClientGone, and what the memory raises where there is none to spare.
    """
    claimed = header(scope, b"content-length")
    if claimed is not None and not (claimed.isascii() and claimed.isdigit()):
        raise WireError("Content-Length is a whole number.")
    if claimed is not None and (len(claimed) > 9 or int(claimed) > most):
        raise TooLarge(f"{what} has at most {most} bytes; this one claims {claimed[:20]}.")
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk = message.get("body", b"")
                if len(body) + len(chunk) > most:
                    raise TooLarge(f"{what} has at most {most} bytes.")
                memory.reserve(len(chunk), client)
                body += chunk
                more = message.get("more_body", False)
    except TimeoutError:
        memory.release(len(body), client)
        raise Refused("The request's body did not arrive.", code="request_timeout", status=408) from None
    except BaseException:
        memory.release(len(body), client)
        raise
    return bytes(body)

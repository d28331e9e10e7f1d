"""Wrong secrets, counted by the address they come from: what people choose themselves can be guessed by asking.

Whoever has shown ten different ones within a minute is not heard until it is over, not even with the right one: that
would tell which it was. Nobody waits for what others did from another address. The same wrong secret again is no guess,
so that a node with an old invitation does not shut out its neighbours. Counted in this process alone, whatever replicas
share: a store that is lost must not let anybody guess, nor keep anybody out.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from tokenplace.errors import Refused
from tokenplace.relay.address import Client

MOST = 10
WINDOW = 60.0
_REMEMBERED = 10_000
"""Addresses remembered: some ten MiB when all of them guess. Beyond, whoever began first begins again."""


class TooManyGuesses(Refused):
    """Too many wrong tokens came from this address; show the right one after the time in Retry-After."""

    code = "too_many_guesses"
    status = HTTPStatus.TOO_MANY_REQUESTS


@dataclass(slots=True)
class _Tried:
    ends: float
    secrets: set[int] = field(default_factory=set)
    """Hashes that mean nothing outside of this process."""


class Guesses:
    """What each address has tried. `refused` counts, as `guesses`, how often one was not heard."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        refused: Counter[str] | None = None,
        remembered: int = _REMEMBERED,
    ) -> None:
        self.refused: Counter[str] = Counter() if refused is None else refused
        self._clock = clock
        self._remembered = remembered
        self._tried: OrderedDict[str, _Tried] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tried)

    def check(self, client: Client) -> None:
        """Call before a secret is looked at. Raises TooManyGuesses."""
        tried = self._tried.get(client.key)
        left = tried.ends - self._clock() if tried is not None and len(tried.secrets) >= MOST else 0.0
        if left > 0:
            self.refused["guesses"] += 1
            seconds = math.ceil(left)
            raise TooManyGuesses(
                f"Too many wrong tokens came from this address; try again in {seconds} seconds.", retry_after=seconds
            )

    def wrong(self, client: Client, secret: str) -> None:
        """This one was wrong."""
        now = self._clock()
        while self._tried and next(iter(self._tried.values())).ends <= now:
            self._tried.popitem(last=False)  # all are tried for the same time, so they end in the order they began
        tried = self._tried.get(client.key)
        if tried is None:
            if len(self._tried) >= self._remembered:
                self._tried.popitem(last=False)
            tried = self._tried[client.key] = _Tried(now + WINDOW)
        tried.secrets.add(hash(secret))

"""A request is answered once, and only while it is fresh: the node's memory of the requests it has opened.

Asked after the request was opened, never before: what is not authenticated cannot fill the memory. The two bounds
work together: an id is remembered for `replay_memory` (10 min), and a request is taken only when its time is within
`clock_skew` (5 min) of the node's, so whatever has been forgotten is also too old to be taken.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque

from tokenplace.errors import ClockSkew, QueueFull, Replayed
from tokenplace.wire.limits import TIMING, Timing
from tokenplace.wire.request import RequestHeader

MAX_REMEMBERED = 65_536
"""Ids in memory at once (about 10 MiB): a hundred opened requests a second for ten minutes."""


class ReplayGuard:
    """Admits each opened request once. Constant time per request, on average."""

    def __init__(self, timing: Timing = TIMING, *, limit: int = MAX_REMEMBERED) -> None:
        self._skew_ms = int(timing.clock_skew * 1000)
        self._memory_ms = max(int(timing.replay_memory * 1000), 2 * self._skew_ms + 1)
        self._limit = limit
        self._ids: set[bytes] = set()
        self._expiries: deque[tuple[int, bytes]] = deque()

    def __len__(self) -> int:
        return len(self._ids)

    def admit(self, header: RequestHeader, now_ms: int) -> None:
        """Let an opened request through, and remember it.

        Raises ClockSkew, Replayed, or QueueFull (with `retry_after`) when the memory is full: to forget an id early
        would let a replay through, so the node rather refuses. The refused request is open, so the refusal can be
        sealed.
        """
        if abs(now_ms - header.time_ms) > self._skew_ms:
            raise ClockSkew
        expiries, ids = self._expiries, self._ids
        while expiries and expiries[0][0] <= now_ms:
            ids.discard(expiries.popleft()[1])
        if header.request_id in ids:
            raise Replayed
        if len(ids) >= self._limit:
            wait = (expiries[0][0] - now_ms) / 1000 if expiries else None
            raise QueueFull("This node has taken as many requests as it can remember.", retry_after=wait)
        ids.add(header.request_id)
        expiries.append((now_ms + self._memory_ms, header.request_id))


class ClassicGuard:
    """Takes each classic message once, by its cipherkey: the answer to a second question with it is Replayed.

    A classic message has no time and no id, and in CBC whoever can ask a node again and again "does this open?" about
    changed copies of a message reads the message (`sealing.classic`). All such copies share its cipherkey, which
    nobody can write in another way. So this guard, unlike the other, is asked before opening. When it is full it
    forgets the oldest: anybody can fill it, and must not shut the node with that.

    Messages that opened are remembered apart (`opened`), where junk pushes none of them out: whoever has captured one
    and wants it answered again would have to have as many others answered first.
    """

    def __init__(self, *, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._opened: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen) + len(self._opened)

    def admit(self, cipherkey: bytes) -> None:
        """Let a message through, and remember it. Raises Replayed."""
        digest = hashlib.sha256(cipherkey).digest()[:16]
        if digest in self._seen or digest in self._opened:
            raise Replayed
        self._remember(self._seen, digest)

    def opened(self, cipherkey: bytes) -> None:
        """A message that was let through has opened."""
        digest = hashlib.sha256(cipherkey).digest()[:16]
        self._seen.pop(digest, None)
        self._remember(self._opened, digest)

    def _remember(self, memory: OrderedDict[bytes, None], digest: bytes) -> None:
        memory[digest] = None
        if len(memory) > self._limit:
            memory.popitem(last=False)

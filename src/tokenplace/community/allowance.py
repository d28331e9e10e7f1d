"""How much one address may write in an hour. Bounded itself: it forgets the address that was quiet longest."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from tokenplace.community import faults

HOUR = 3600.0
_MOST_ADDRESSES = 10_000


class Allowance:
    """`most` writings for each address and hour; 0 lets everybody write as they like. `clock` is in seconds."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._written: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, address: str) -> None:
        """One more. Raises ApiError (429) that says when there will be room."""
        if not self._most:
            return
        now = self._clock()
        times = self._written.setdefault(address, deque())
        self._written.move_to_end(address)
        while times and times[0] <= now - HOUR:
            times.popleft()
        if len(times) >= self._most:
            raise faults.too_many(times[0] + HOUR - now)
        times.append(now)
        if len(self._written) > _MOST_ADDRESSES:
            self._written.popitem(last=False)

"""Classic keys of a node: which one it shows, which ones still open, and when they are gone.

As `keys.KeyRing` for the sealed exchange: shown for a day, opened for one more day, never written down. A classic key
takes 50 ms to make and more on a small machine, so it is made elsewhere (in a thread) and handed in. Times are unix
milliseconds and are handed in too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokenplace.errors import KeyUnknown
from tokenplace.sealing.keys import LIFE_MS, MAX_PREVIOUS, OVERLAP_MS
from tokenplace.sealing.rsa import ClassicKey
from tokenplace.wire.limits import TIMING


@dataclass(frozen=True, slots=True)
class _Held:
    """A key and the moment from which what was sealed to it is refused."""

    key: ClassicKey
    until_ms: int


class ClassicRing:
    """The current classic key, which the card shows, and previous ones that still open requests on their way."""

    def __init__(self, current: ClassicKey, now_ms: int, *, life_ms: int = LIFE_MS) -> None:
        self._life_ms = life_ms
        self._current = current
        self._since_ms = now_ms
        self._previous: tuple[_Held, ...] = ()

    def __repr__(self) -> str:
        return f"<ClassicRing {self._current!r} and {len(self._previous)} previous>"

    @property
    def current(self) -> ClassicKey:
        """What new requests are to be sealed to."""
        return self._current

    def previous(self, now_ms: int) -> tuple[ClassicKey, ...]:
        """Keys that are no longer shown and still open, the youngest first."""
        return tuple(held.key for held in self._previous if now_ms < held.until_ms)

    def held(self, now_ms: int) -> tuple[ClassicKey, ...]:
        """Every key that opens, the current one first."""
        return (self._current, *self.previous(now_ms))

    def find(self, key_id: bytes, now_ms: int) -> ClassicKey:
        """The key of that id. Raises KeyUnknown when it was never here or its time is over."""
        for key in self.held(now_ms):
            if key.key_id == key_id:
                return key
        raise KeyUnknown

    def due(self, now_ms: int) -> bool:
        """Whether a fresh key should be made: this one has been shown long enough, or the clock was set back."""
        made_in_future = now_ms < self._since_ms - int(TIMING.clock_skew * 1000)
        return made_in_future or now_ms >= self._since_ms + self._life_ms

    def rotate(self, fresh: ClassicKey, now_ms: int, *, overlap_ms: int = OVERLAP_MS) -> None:
        """From now on `fresh` is shown; the one before still opens for `overlap_ms`, and none longer than that.

        With `overlap_ms=0` the keys before are destroyed at once: for a machine that somebody else has been on.
        """
        until = now_ms + overlap_ms
        kept = (replace(held, until_ms=min(held.until_ms, until)) for held in self._previous)
        retired = (_Held(self._current, until), *kept)
        self._previous = tuple(held for held in retired if held.until_ms > now_ms)[:MAX_PREVIOUS]
        self._current = fresh
        self._since_ms = now_ms

    def tick(self, now_ms: int) -> bool:
        """Destroy keys whose time is over. True when one was: then the card is out of date."""
        kept = tuple(held for held in self._previous if now_ms < held.until_ms)
        gone = len(kept) < len(self._previous)
        self._previous = kept
        return gone

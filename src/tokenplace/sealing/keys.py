"""Sealing keys: what requests are sealed to, for how long, and when they are gone.

    generate ──24 h──▶ not_after: the card shows the next key ──24 h──▶ accepted_until: destroyed
    │ the card shows it: new requests use it │ requests already on their way still open │ KeyUnknown

A request that somebody recorded can be opened for as long as its key exists, so keys are short-lived and never
written down: two days after a key was made, or when the node stops, nobody can open what was sealed to it any more. A
node that starts again makes new keys, and clients that still seal to the old ones are told KeyUnknown and fetch the
fresh card. Whoever holds a `KeyRing` calls `tick` on a schedule (every minute will do) and shows a new card when it
says so. Times are unix milliseconds and are handed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from tokenplace.errors import ClockSkew, KeyUnknown
from tokenplace.sealing import hpke
from tokenplace.wire.card import SealingKey
from tokenplace.wire.limits import TIMING, Timing
from tokenplace.wire.request import Kem

HOUR_MS = 60 * 60 * 1000
LIFE_MS = 24 * HOUR_MS
"""For how long the card shows a key."""

OVERLAP_MS = 24 * HOUR_MS
"""For how much longer requests sealed to it are opened."""

MAX_PREVIOUS = 8
"""Previous keys that a ring holds; rotating on order more often than that destroys the oldest early."""


@dataclass(frozen=True, slots=True, repr=False)
class SealingPrivateKey:
    """One private sealing key with its times (unix ms). `raw` is the secret, laid out as `sealing.hpke` says."""

    kem: Kem
    raw: bytes
    not_before_ms: int
    not_after_ms: int
    opener: hpke.Private = field(init=False, compare=False)
    key_id: bytes = field(init=False, compare=False)
    _public: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        # The library's key and the public half are made once: expanding an ML-KEM seed costs more than opening.
        object.__setattr__(self, "opener", hpke.load_private(self.kem, self.raw))
        object.__setattr__(self, "_public", hpke.public_bytes(self.kem, self.raw))
        object.__setattr__(self, "key_id", self.public().key_id)

    def __repr__(self) -> str:
        return f"<SealingPrivateKey {self.key_id.hex()} {self.kem.name} until {self.not_after_ms}>"

    @classmethod
    def generate(
        cls,
        *,
        now_ms: int,
        kem: Kem = Kem.X25519_MLKEM768,
        life_ms: int = LIFE_MS,
        random: Callable[[int], bytes] = os.urandom,
    ) -> SealingPrivateKey:
        """A fresh key that the card may show from now on, for `life_ms`."""
        return cls(kem, random(hpke.PRIVATE_BYTES[kem]), now_ms, now_ms + life_ms)

    def public(self) -> SealingKey:
        """The half that goes into the card."""
        return SealingKey(self.kem, self._public, self.not_before_ms, self.not_after_ms)


@dataclass(frozen=True, slots=True)
class _Held:
    """A key and the moment from which requests sealed to it are refused."""

    key: SealingPrivateKey
    until_ms: int


class KeyRing:
    """A node's sealing keys: the current one, which the card shows, and previous ones that still open requests."""

    def __init__(self, current: SealingPrivateKey, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._current = current
        self._previous: tuple[_Held, ...] = ()

    def __repr__(self) -> str:
        return f"<KeyRing {self._current!r} and {len(self._previous)} previous>"

    @classmethod
    def generate(
        cls, *, now_ms: int, kem: Kem = Kem.X25519_MLKEM768, random: Callable[[int], bytes] = os.urandom
    ) -> KeyRing:
        """A ring with one fresh key."""
        return cls(SealingPrivateKey.generate(now_ms=now_ms, kem=kem, random=random), random=random)

    def public_keys(self, now_ms: int) -> tuple[SealingKey, ...]:
        """What the card shows: keys that new requests should use. Empty when `tick` is overdue."""
        return (self._current.public(),) if now_ms < self._current.not_after_ms else ()

    def find(self, key_id: bytes, now_ms: int) -> SealingPrivateKey:
        """The key that a request header names. Raises KeyUnknown when it was never here or its time is over."""
        for held in (_Held(self._current, self._current.not_after_ms + OVERLAP_MS), *self._previous):
            if held.key.key_id == key_id and now_ms < held.until_ms:
                return held.key
        raise KeyUnknown

    def rotate(self, now_ms: int, *, overlap_ms: int = OVERLAP_MS) -> None:
        """On order: a new current key; the one before still opens requests for `overlap_ms`.

        With `overlap_ms=0` the keys before are destroyed at once: for a machine that somebody else has been on.
        """
        retired = _Held(self._current, self._current.not_after_ms + overlap_ms)
        self._current = SealingPrivateKey.generate(now_ms=now_ms, kem=self._current.kem, random=self._random)
        self._previous = (retired, *self._previous)
        self._destroy(now_ms, overlap_ms)

    def tick(self, now_ms: int) -> bool:
        """On schedule: rotate when the current key's time is over, destroy keys whose overlap is over.

        True when it rotated: then the card is out of date. A current key from the future means that this machine's
        clock was set back; it is replaced, since no client would use it.
        """
        made_in_future = now_ms < self._current.not_before_ms - int(TIMING.clock_skew * 1000)
        overdue = made_in_future or now_ms >= self._current.not_after_ms
        if overdue:
            self.rotate(now_ms)
        self._destroy(now_ms, OVERLAP_MS)
        return overdue

    def _destroy(self, now_ms: int, longest_ms: int) -> None:
        """Forget what is over; nothing may live longer from now than `longest_ms`.

        Python cannot wipe memory: a forgotten key is gone once its bytes are overwritten.
        """
        latest = now_ms + longest_ms
        kept = (held if held.until_ms <= latest else replace(held, until_ms=latest) for held in self._previous)
        self._previous = tuple(held for held in kept if held.until_ms > now_ms)[:MAX_PREVIOUS]


def choose_key(keys: Iterable[SealingKey], *, now_ms: int, timing: Timing = TIMING) -> SealingKey:
    """The client's pick among a trusted card's keys: hybrid before plain X25519, then the one that lives longest.

    A clock difference of `timing.clock_skew` is forgiven. Raises ClockSkew when all keys are of the future, and
    KeyUnknown when the card is out of date (an old card could name a key that has since been stolen).
    """
    slack = int(timing.clock_skew * 1000)
    begun = [key for key in keys if key.not_before_ms <= now_ms + slack]
    alive = [key for key in begun if now_ms < key.not_after_ms + slack]
    if alive:
        return max(alive, key=lambda key: (key.kem is Kem.X25519_MLKEM768, key.not_after_ms))
    if not begun:
        raise ClockSkew("The node's sealing keys are not valid yet; set this machine's clock.")
    raise KeyUnknown("The node's card is out of date; fetch a fresh one.")

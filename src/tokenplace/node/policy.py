"""When this machine may serve: hours, battery, other programs' work, temperature. Pure, but for the watcher at the end.

    verdict = policy.verdict(now, readings)     # what holds at this very moment
    damped.feed(verdict, seconds)               # what is done about it: not at every twitch

Whatever a machine does not tell (a temperature, a battery) forbids nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from datetime import time as TimeOfDay

from tokenplace.node.hardware import Readings
from tokenplace.spelling import words

LOOK_EVERY = 5.0
"""Seconds between two looks at the machine."""

BUSY_FOR = 15.0
"""Seconds that something must last before it stops the node: opening a program is no reason."""

CALM_FOR = 60.0
"""Seconds of calm before the node serves again: whoever works at the machine pauses to think."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(
    rf"(?:(?P<first>{'|'.join(_DAYS)})(?:-(?P<last>{'|'.join(_DAYS)}))?\s+)?"
    r"(?P<from>\d{1,2}:\d{2})\s*-\s*(?P<to>\d{1,2}:\d{2})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Span:
    """From one time of day to another, over midnight when the second is not later; on these days (0 is Monday)."""

    begins: TimeOfDay
    ends: TimeOfDay
    days: frozenset[int]

    def holds(self, now: datetime) -> bool:
        """Whether `now` (local time) lies in it. A night belongs to the day on which it begins."""
        at, today = now.time(), now.weekday()
        if self.begins < self.ends:
            return today in self.days and self.begins <= at < self.ends
        yesterday = (today - 1) % 7
        return (today in self.days and at >= self.begins) or (yesterday in self.days and at < self.ends)


@dataclass(frozen=True, slots=True)
class Hours:
    """When to serve; `text` is how the owner wrote it."""

    text: str
    spans: tuple[Span, ...]

    @classmethod
    def parse(cls, text: str) -> Hours:
        """`22:00-07:00`, `mon-fri 18:00-08:00,sat 00:00-24:00`. Raises ValueError."""
        return cls(text.strip(), tuple(_span(word) for word in words(text)))

    def hold(self, now: datetime) -> bool:
        """Whether `now` (local time) is among them."""
        return not self.spans or any(span.holds(now) for span in self.spans)


def _span(word: str) -> Span:
    found = _SPAN.fullmatch(word)
    if found is None:
        raise ValueError(f"Hours are written like 22:00-07:00 or mon-fri 18:00-08:00, not {word!r}.")
    days = frozenset(range(7))
    if found["first"]:
        first = _DAYS.index(found["first"].lower())
        last = _DAYS.index((found["last"] or found["first"]).lower())
        days = frozenset((first + step) % 7 for step in range((last - first) % 7 + 1))
    return Span(_time(found["from"]), _time(found["to"]), days)


def _time(text: str) -> TimeOfDay:
    hours, minutes = (int(part) for part in text.split(":"))
    if (hours, minutes) == (24, 0):
        return TimeOfDay(0, 0)
    try:
        return TimeOfDay(hours, minutes)
    except ValueError:
        raise ValueError(f"{text} is no time of day.") from None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the node may serve, and why not. `at_once`: no waiting whether it lasts."""

    may_serve: bool
    reason: str = ""
    at_once: bool = False


SERVE = Verdict(True)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the owner allows. Parts of one, °C; None does not bound."""

    hours: Hours | None = None
    on_battery: bool = False
    max_cpu: float | None = None
    max_gpu: float | None = None
    max_temperature: float | None = None

    def verdict(self, now: datetime, readings: Readings) -> Verdict:
        """What holds at this moment; `now` is local time."""
        if self.hours is not None and not self.hours.hold(now):
            return Verdict(False, f"it serves at {self.hours.text} only, by TOKEN_PLACE_HOURS", at_once=True)
        if readings.on_battery and not self.on_battery:
            return Verdict(False, "this machine runs on its battery", at_once=True)
        if self.max_temperature is not None and _above(readings.temperature, self.max_temperature):
            return Verdict(False, f"it is {readings.temperature:.0f} °C hot here, more than {self.max_temperature:.0f}")
        if self.max_gpu is not None and _above(readings.gpu_busy, self.max_gpu):
            return Verdict(False, f"other programs use {readings.gpu_busy:.0%} of a GPU")
        if self.max_cpu is not None and _above(readings.cpu_busy, self.max_cpu):
            return Verdict(False, f"other programs use {readings.cpu_busy:.0%} of the processor")
        return SERVE

    @property
    def idle(self) -> bool:
        """Whether it forbids nothing, whatever happens."""
        bounds = (self.hours, self.max_cpu, self.max_gpu, self.max_temperature)
        return self.on_battery and all(bound is None for bound in bounds)


def _above(value: float | None, most: float) -> bool:
    return value is not None and value > most


def part_of(told: float | None) -> float | None:
    """A bound as a part of one: above 1 it was written as percent."""
    return None if told is None else told / 100 if told > 1 else told


@dataclass(slots=True)
class Damped:
    """Verdicts over time. Busy must last, and so must calm; hours and battery count at once."""

    busy_for: float = BUSY_FOR
    calm_for: float = CALM_FOR
    now: Verdict = SERVE
    _since: float | None = None
    """Since when the verdicts have been unlike `now`."""

    def feed(self, verdict: Verdict, clock: float) -> Verdict:
        """One more verdict, at `clock` seconds. Returns what holds."""
        if verdict.may_serve == self.now.may_serve:
            self._since = None
            if not verdict.may_serve:
                self.now = verdict  # the reason may have changed
            return self.now
        self._since = clock if self._since is None else self._since
        needed = self.busy_for if self.now.may_serve else self.calm_for
        if verdict.at_once or (verdict.may_serve and self.now.at_once) or clock - self._since >= needed:
            self.now, self._since = verdict, None
        return self.now


async def watch(
    policy: Policy,
    *,
    read: Callable[[float], Readings],
    pause: Callable[[str], None],
    resume: Callable[[], None],
    every: float = LOOK_EVERY,
    damped: Damped | None = None,
    clock: Callable[[], float] = time.monotonic,
    local_time: Callable[[], datetime] = datetime.now,
) -> None:
    """Look again and again, and pause or resume when the verdict turns. Cancelled by its owner."""
    damped = damped or Damped()
    told = SERVE
    while True:
        at = clock()
        readings = await asyncio.to_thread(read, at)
        verdict = damped.feed(policy.verdict(local_time(), readings), at)
        if verdict != told:
            if verdict.may_serve:
                resume()
            else:
                pause(verdict.reason)
            told = verdict
        await asyncio.sleep(every)

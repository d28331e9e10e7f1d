"""What this machine spends: processor, memory, graphics card and power, as far as it tells without special rights.

Blocking, but quick (under a millisecond without a graphics card).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tokenplace.node.hardware import load_nvml

SYS = Path("/sys")


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """One graphics card at this moment: percent of its time and memory, and watts where it tells."""

    utilization_percent: float
    memory_percent: float
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class Power:
    """Watts, and what they are of. `watts` is None where nothing can be read; `source` then says why."""

    watts: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Resources:
    """The fields of `/metrics/resource`; those of the graphics card are the average over all cards."""

    cpu_percent: float
    memory_percent: float
    gpu_available: bool
    gpu_count: int
    gpu_utilization_percent: float
    gpu_memory_percent: float

    def fields(self) -> dict[str, float | bool | int]:
        """For JSON."""
        return asdict(self)


class NvidiaCards:
    """The load of NVIDIA's cards as NVML tells of it; none where it does not answer."""

    def __init__(self, load: Callable[[], Any] = load_nvml) -> None:
        self._nvml = load()
        if self._nvml is not None:
            try:
                self._nvml.nvmlInit()
            except self._nvml.NVMLError:
                self._nvml = None

    def __call__(self) -> tuple[GpuLoad, ...]:
        """One reading."""
        nvml = self._nvml
        if nvml is None:
            return ()
        try:
            return tuple(self._card(nvml, nvml.nvmlDeviceGetHandleByIndex(i)) for i in range(nvml.nvmlDeviceGetCount()))
        except nvml.NVMLError:
            return ()

    def _card(self, nvml: Any, handle: Any) -> GpuLoad:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        try:
            watts: float | None = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        except nvml.NVMLError:  # many small cards do not measure it
            watts = None
        try:
            busy = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except nvml.NVMLError:
            busy = 0.0
        return GpuLoad(busy, round(100 * memory.used / memory.total, 1), watts)


class Gauge:
    """Reads again and again; percent and watts are of the time since the reading before.

    `gpus` gives the graphics cards' load, none where there are none. `sys` is where the kernel shows its counters.
    """

    def __init__(
        self,
        gpus: Callable[[], Sequence[GpuLoad]] = lambda: (),
        *,
        sys: Path = SYS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpus = gpus
        self._sys = sys
        self._clock = clock
        self._joules: dict[Path, tuple[float, float]] = {}
        self._watts: float | None = None
        psutil.cpu_percent(None)  # the first answer is of no time at all
        self._package_watts()

    def resources(self) -> Resources:
        """Load of processor, memory and graphics cards."""
        cards = self._gpus()
        count = len(cards)
        return Resources(
            cpu_percent=psutil.cpu_percent(None),
            memory_percent=psutil.virtual_memory().percent,
            gpu_available=bool(cards),
            gpu_count=count,
            gpu_utilization_percent=round(sum(card.utilization_percent for card in cards) / count, 1) if count else 0.0,
            gpu_memory_percent=round(sum(card.memory_percent for card in cards) / count, 1) if count else 0.0,
        )

    def power(self) -> Power:
        """What the machine draws: the battery's drain where it runs on one, else processor and cards together."""
        drain = self._battery_watts()
        if drain is not None:
            return Power(drain, "battery")
        cards = [card.watts for card in self._gpus() if card.watts is not None]
        package = self._package_watts()
        parts = [name for name, told in (("processor", package is not None), ("graphics card", bool(cards))) if told]
        if not parts:
            return Power(None, self._why_not())
        return Power(round((package or 0.0) + sum(cards), 1), " and ".join(parts))

    def _package_watts(self) -> float | None:
        """From the processor's own energy counters (RAPL), which only root may read on most systems."""
        now = self._clock()
        watts = None
        for counter in sorted(self._sys.glob("class/powercap/intel-rapl:[0-9]*/energy_uj")):
            if counter.parent.name.count(":") != 1:
                continue  # a part of a package, which is in its sum
            joules = _number(counter)
            if joules is None:
                continue
            joules /= 1e6
            before, at = self._joules.get(counter, (joules, now))
            if now > at and joules >= before:  # the counter starts again from 0 now and then
                watts = (watts or 0.0) + (joules - before) / (now - at)
            self._joules[counter] = (joules, now)
        return watts

    def _battery_watts(self) -> float | None:
        for battery in sorted(self._sys.glob("class/power_supply/*")):
            if _text(battery / "type") != "Battery" or _text(battery / "status") != "Discharging":
                continue
            power = _number(battery / "power_now")
            if power is not None:
                return round(abs(power) / 1e6, 1)
            current, voltage = _number(battery / "current_now"), _number(battery / "voltage_now")
            if current is not None and voltage is not None:
                return round(abs(current) * voltage / 1e12, 1)
        return None

    def _why_not(self) -> str:
        counters = list(self._sys.glob("class/powercap/intel-rapl:[0-9]*/energy_uj"))
        if not counters:
            return "this machine shows no power counters"
        if any(_number(counter) is None for counter in counters):
            return "the processor's counters can be read by root only"
        return "not measured yet"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None

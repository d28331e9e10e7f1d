"""What this machine has and how busy it is: pure values, and a reader that is handed its sources.

The sources are the library psutil, NVML (NVIDIA's management library, through the module `pynvml`) and the files of
Linux's cgroups, which bound what a container may really use. Whatever cannot be read is None or empty, never a guess.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

UNBOUNDED = 1 << 60
"""Bytes from which a cgroup's limit is none (version 1 writes a number near 2⁶³)."""

_GPU_TEMPERATURE = 0  # NVML_TEMPERATURE_GPU
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz", "cpu-thermal", "soc_thermal")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU. `bus` is its PCI address, by which other libraries name it too. Bytes, and parts of one."""

    index: int
    name: str
    bus: str
    free: int
    total: int
    busy: float | None = None
    temperature: float | None = None
    """°C."""

    @property
    def title(self) -> str:
        """As people number them."""
        return f"GPU {self.index}"


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a model can be run with. `cores` are those that this process may use, bounds of a container counted."""

    cores: int
    memory_free: int
    memory_total: int
    gpus: tuple[Gpu, ...] = ()
    gpu_note: str = ""
    """Why no GPU was looked at; empty where NVML answered."""


@dataclass(frozen=True, slots=True)
class Readings:
    """How it stands at this moment. None: this machine does not tell."""

    on_battery: bool | None = None
    cpu_busy: float | None = None
    """The part of all cores that other programs use, 0 to 1."""
    gpu_busy: float | None = None
    """The same of the busiest GPU."""
    temperature: float | None = None
    """The hottest of processor and GPUs, °C."""


class Nvml(Protocol):
    """What is used of the module `pynvml`."""

    @property
    def NVMLError(self) -> type[Exception]: ...  # noqa: D102 - NVML's own names
    def nvmlInit(self) -> None: ...  # noqa: D102
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: D102
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: D102
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...  # noqa: D102
    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any: ...  # noqa: D102
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: D102
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: D102
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...  # noqa: D102
    def nvmlDeviceGetProcessUtilization(self, handle: Any, last: int) -> Any: ...  # noqa: D102


def load_nvml() -> Nvml | None:
    """The module, None where it is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    module: Nvml = pynvml
    return module


class Sensors:
    """Reads this machine. `root` is where /proc and /sys hang; `ours` names the processes whose work is our own."""

    def __init__(
        self,
        *,
        nvml: Callable[[], Nvml | None] = load_nvml,
        system: Any = psutil,
        root: Path = Path("/"),
        ours: Callable[[], Collection[int]] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._load = nvml
        self._nvml: Nvml | None = None
        self._note: str | None = None
        self._system = system
        self._root = root
        self._ours = ours or (lambda: [os.getpid(), *_children_of(system, os.getpid())])
        self._env = os.environ if env is None else env
        self._before: tuple[float, float, Mapping[int, float]] | None = None

    # -- what there is -----------------------------------------------------------------------------------------------

    def hardware(self) -> Hardware:
        """What is here, and free at this moment."""
        memory = self._system.virtual_memory()
        free, total = int(memory.available), int(memory.total)
        limit, used = self._memory_limit()
        if limit is not None:
            free, total = max(0, min(free, limit - used)), min(total, limit)
        gpus = self.gpus()
        return Hardware(self.cores(), free, total, gpus, self._note or "")

    def cores(self) -> int:
        """How many cores this process may use: those of the machine, its affinity, and a container's share of time."""
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        quota = self._cpu_limit()
        return cores if quota is None else max(1, min(cores, math.floor(quota)))

    def gpus(self) -> tuple[Gpu, ...]:
        """NVIDIA's GPUs as NVML tells of them; none where it does not answer."""
        nvml = self._ready()
        if nvml is None:
            return ()
        try:
            return tuple(self._gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        except nvml.NVMLError as error:
            self._note = f"NVML does not tell of its GPUs ({error})"
            return ()

    def _gpu(self, nvml: Nvml, index: int) -> Gpu:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetName(handle)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        bus = _text(nvml.nvmlDeviceGetPciInfo(handle).busId)
        temperature: float | None
        try:
            temperature = float(nvml.nvmlDeviceGetTemperature(handle, _GPU_TEMPERATURE))
        except nvml.NVMLError:
            temperature = None
        busy = self._busy_with_others(nvml, handle)
        return Gpu(index, _text(name), bus, int(memory.free), int(memory.total), busy, temperature)

    def _busy_with_others(self, nvml: Nvml, handle: Any) -> float | None:
        """The GPU's use less our own. Where it does not tell who uses it, nothing is known while we might."""
        try:
            busy = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except nvml.NVMLError:
            return None
        if not busy:
            return 0.0
        ours = set(self._ours())
        try:
            own = sum(one.smUtil for one in nvml.nvmlDeviceGetProcessUtilization(handle, 0) if one.pid in ours)
        except nvml.NVMLError:
            return None
        left: float = max(0.0, busy - own / 100)
        return left

    def _ready(self) -> Nvml | None:
        if self._note is not None and self._nvml is None:
            return None
        if self._nvml is None:
            nvml = self._load()
            if nvml is None:
                self._note = "the package nvidia-ml-py is not installed"
                return None
            try:
                nvml.nvmlInit()
            except nvml.NVMLError as error:
                self._note = f"no NVIDIA driver answers ({error})"
                return None
            self._nvml, self._note = nvml, ""
        return self._nvml

    # -- how it stands -----------------------------------------------------------------------------------------------

    def readings(self, now: float) -> Readings:
        """How it stands. `now` is a monotonic time in seconds; the processor's use is that since the last call."""
        gpus = self.gpus()
        warm = [gpu.temperature for gpu in gpus if gpu.temperature is not None]
        warm += self._cpu_temperatures()
        busy = [gpu.busy for gpu in gpus if gpu.busy is not None]
        return Readings(
            on_battery=self._on_battery(),
            cpu_busy=self._cpu_busy(now),
            gpu_busy=max(busy, default=None),
            temperature=max(warm, default=None),
        )

    def _on_battery(self) -> bool | None:
        read = getattr(self._system, "sensors_battery", None)  # not on every platform
        battery = read() if read is not None else None
        return None if battery is None or battery.power_plugged is None else not battery.power_plugged

    def _cpu_temperatures(self) -> list[float]:
        read = getattr(self._system, "sensors_temperatures", None)
        groups = read() if read is not None else {}
        return [float(each.current) for name in _CPU_SENSORS for each in groups.get(name, ()) if each.current]

    def _cpu_busy(self, now: float) -> float | None:
        """The part of the machine's cores that others have used since the last call; None at the first."""
        times = self._system.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        ours = {pid: spent for pid in self._ours() if (spent := _spent_by(self._system, pid)) is not None}
        before, self._before = self._before, (now, idle, ours)
        if before is None or now - before[0] <= 0:
            return None
        cores = self._system.cpu_count() or 1
        whole = (now - before[0]) * cores
        own = sum(max(0.0, spent - before[2].get(pid, 0.0)) for pid, spent in ours.items())
        part: float = 1 - (idle - before[1]) / whole - own / whole
        return min(1.0, max(0.0, part))

    # -- bounds of a container ---------------------------------------------------------------------------------------

    def _cpu_limit(self) -> float | None:
        """Cores' worth of time that the cgroup grants, the tightest on the way up; None where it does not bound."""
        found = []
        for group in self._groups("cpu"):
            words = _words(group / "cpu.max")
            if len(words) == 2 and words[0].isdigit():
                found.append(int(words[0]) / int(words[1]))
            quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
            if quota and period and quota[0].isdigit():
                found.append(int(quota[0]) / int(period[0]))
        return min(found, default=None)

    def _memory_limit(self) -> tuple[int | None, int]:
        """(bytes that the cgroup grants, bytes of them in use that cannot be taken back)."""
        tightest: tuple[int | None, int] = (None, 0)
        for group in self._groups("memory"):
            for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
                told, used = _words(group / limit), _words(group / usage)
                if not (told and used and told[0].isdigit() and int(told[0]) < UNBOUNDED):
                    continue
                stat = dict(pair.split(" ", 1) for pair in _lines(group / "memory.stat") if " " in pair)
                cached = int(stat.get("inactive_file", stat.get("total_inactive_file", "0")))
                cached += int(stat.get("active_file", stat.get("total_active_file", "0")))
                left = int(told[0]) - int(used[0]) + cached
                if tightest[0] is None or left < tightest[0] - tightest[1]:
                    tightest = (int(told[0]), max(0, int(used[0]) - cached))
        return tightest

    def _groups(self, controller: str) -> Sequence[Path]:
        """This process's cgroup and those above it, for version 2 and for one controller of version 1."""
        base = self._root / "sys/fs/cgroup"
        found = []
        for line in _lines(self._root / "proc/self/cgroup"):
            number, controllers, path = ([*line.split(":", 2), "", ""])[:3]
            if number == "0" and not controllers:
                found.append((base, path))
            elif controller in controllers.split(","):
                found.append((base / controllers, path))
                found.append((base / controller, path))
        if not found:
            return [base] if base.is_dir() else []
        groups = []
        for top, path in found:
            here = top / path.strip("/")
            # In a container the path is the host's, and what is mounted is the group itself.
            chain = [here, *here.parents] if here.is_dir() else [top]
            groups += [each for each in chain if each == top or top in each.parents]
        return list(dict.fromkeys(groups))


def _children_of(system: Any, pid: int) -> list[int]:
    try:
        return [child.pid for child in system.Process(pid).children(recursive=True)]
    except system.Error:
        return []


def _spent_by(system: Any, pid: int) -> float | None:
    try:
        times = system.Process(pid).cpu_times()
    except system.Error:
        return None
    return float(times.user + times.system)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    lines = _lines(path)
    return lines[0].split() if lines else []

"""What the machine tells, from sources that are handed in: a library, NVML, and a tree of files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokenplace.node.engines.llama import default_threads
from tokenplace.node.guardrail import Device, Guardrail
from tokenplace.node.hardware import Hardware, Sensors
from tokenplace.node.memory import GIB, MIB, Anatomy, Layer, Load

OURS, THEIRS = 100, 200


class FakeError(Exception):
    """What a library raises."""


class FakeSystem:
    """A machine of four cores and 16 GiB, as psutil would show it."""

    Error = FakeError

    def __init__(self) -> None:
        self.idle = 0.0
        self.spent = {OURS: 0.0, THEIRS: 0.0}
        self.battery: Any = None
        self.hot: dict[str, list[Any]] = {}

    def virtual_memory(self) -> Any:
        return SimpleNamespace(available=12 * GIB, total=16 * GIB)

    def cpu_count(self) -> int:
        return 4

    def cpu_times(self) -> Any:
        return SimpleNamespace(idle=self.idle, iowait=0.0)

    def sensors_battery(self) -> Any:
        return self.battery

    def sensors_temperatures(self) -> Any:
        return self.hot

    def Process(self, pid: int) -> Any:
        if pid not in self.spent:
            raise FakeError(pid)
        times = SimpleNamespace(user=self.spent[pid], system=0.0)
        return SimpleNamespace(cpu_times=lambda: times, children=lambda recursive: [])


class FakeNvml:
    """A driver with GPUs in it. `broken` names a function that it refuses."""

    NVMLError = FakeError

    def __init__(self, *free: float, driver: bool = True) -> None:
        self.free = free
        self.driver = driver
        self.busy, self.shares, self.tells_shares = 0, {OURS: 0, THEIRS: 0}, True

    def nvmlInit(self) -> None:
        if not self.driver:
            raise FakeError("NVML Shared Library Not Found")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.free)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"Model T"

    def nvmlDeviceGetPciInfo(self, handle: int) -> Any:
        return SimpleNamespace(busId=f"00000000:{handle + 1:02X}:00.0".encode())

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(free=int(self.free[handle] * GIB), total=8 * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=self.busy)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 60 + handle

    def nvmlDeviceGetProcessUtilization(self, handle: int, last: int) -> Any:
        if not self.tells_shares:
            raise FakeError("not supported")
        return [SimpleNamespace(pid=pid, smUtil=share) for pid, share in self.shares.items()]


def sensors(root: Path, nvml: FakeNvml | None = None, system: FakeSystem | None = None) -> Sensors:
    return Sensors(nvml=lambda: nvml, system=system or FakeSystem(), root=root, ours=lambda: [OURS])


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class TestContainers:
    @pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")
    def test_a_share_of_time_counts_as_the_cores_it_is_worth(self, tmp_path: Path) -> None:
        cores = len(os.sched_getaffinity(0))
        assert sensors(tmp_path).cores() == cores
        write(tmp_path, **{"proc__self__cgroup": "0::/box\n", "sys__fs__cgroup__box__cpu.max": "150000 100000\n"})
        assert sensors(tmp_path).cores() == 1  # one and a half: a second thread would wait half of the time
        assert default_threads(1) == 1
        write(tmp_path, **{"sys__fs__cgroup__box__cpu.max": "max 100000\n"})
        assert sensors(tmp_path).cores() == cores

    def test_the_tightest_bound_on_the_way_up_counts(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            **{
                "proc__self__cgroup": "0::/outer/inner\n",
                "sys__fs__cgroup__outer__memory.max": f"{4 * GIB}\n",
                "sys__fs__cgroup__outer__memory.current": f"{3 * GIB}\n",
                "sys__fs__cgroup__outer__inner__memory.max": "max\n",
                "sys__fs__cgroup__outer__inner__memory.current": "5\n",
            },
        )
        found = sensors(tmp_path).hardware()
        assert (found.memory_free, found.memory_total) == (1 * GIB, 4 * GIB)

    def test_pages_of_files_can_be_taken_back_and_count_as_free(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            **{
                "proc__self__cgroup": "0::/\n",
                "sys__fs__cgroup__memory.max": f"{4 * GIB}\n",
                "sys__fs__cgroup__memory.current": f"{3 * GIB}\n",
                "sys__fs__cgroup__memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file {GIB}\n",
            },
        )
        assert sensors(tmp_path).hardware().memory_free == 3 * GIB

    def test_version_one_of_cgroups_bounds_too(self, tmp_path: Path) -> None:
        # In a container the path is the host's, and what is mounted is the group itself.
        write(
            tmp_path,
            **{
                "proc__self__cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
                "sys__fs__cgroup__memory__memory.limit_in_bytes": f"{2 * GIB}\n",
                "sys__fs__cgroup__memory__memory.usage_in_bytes": f"{GIB}\n",
                "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "100000\n",
                "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000\n",
            },
        )
        assert sensors(tmp_path).hardware().memory_total == 2 * GIB
        assert sensors(tmp_path).cores() == 1

    def test_without_bounds_the_machine_counts(self, tmp_path: Path) -> None:
        write(tmp_path, **{"sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712\n"})
        found = sensors(tmp_path).hardware()
        assert (found.memory_free, found.memory_total) == (12 * GIB, 16 * GIB)


class TestGpus:
    def test_nvml_tells_of_every_gpu(self, tmp_path: Path) -> None:
        found = sensors(tmp_path, FakeNvml(4.0, 7.5)).hardware()
        assert [(gpu.title, gpu.free / GIB, gpu.name) for gpu in found.gpus] == [
            ("GPU 0", 4.0, "Model T"),
            ("GPU 1", 7.5, "Model T"),
        ]
        assert found.gpu_note == ""

    def test_without_the_package_or_a_driver_there_are_none_and_it_is_said_why(self, tmp_path: Path) -> None:
        assert "nvidia-ml-py is not installed" in sensors(tmp_path, None).hardware().gpu_note
        found = sensors(tmp_path, FakeNvml(4.0, driver=False)).hardware()
        assert (found.gpus, "no NVIDIA driver answers" in found.gpu_note) == ((), True)


class TestReadings:
    def test_our_own_work_is_no_reason_to_pause(self, tmp_path: Path) -> None:
        system = FakeSystem()
        look = sensors(tmp_path, system=system)
        assert look.readings(0.0).cpu_busy is None
        system.spent[OURS] += 20.0  # ten seconds, four cores: half of it ours, a quarter theirs
        system.idle += 10.0
        assert look.readings(10.0).cpu_busy == pytest.approx(0.25)
        system.idle += 40.0
        assert look.readings(20.0).cpu_busy == 0.0

    def test_a_child_that_has_ended_is_no_fault(self, tmp_path: Path) -> None:
        system = FakeSystem()
        look = sensors(tmp_path, system=system)
        look.readings(0.0)
        del system.spent[OURS]
        assert look.readings(10.0).cpu_busy == 1.0

    def test_of_a_gpu_only_the_others_use_counts(self, tmp_path: Path) -> None:
        nvml = FakeNvml(4.0)
        nvml.busy, nvml.shares = 90, {OURS: 60, THEIRS: 30}
        assert sensors(tmp_path, nvml).readings(0.0).gpu_busy == pytest.approx(0.3)

    def test_a_gpu_that_does_not_tell_who_uses_it_forbids_nothing(self, tmp_path: Path) -> None:
        nvml = FakeNvml(4.0)
        nvml.busy, nvml.tells_shares = 90, False
        assert sensors(tmp_path, nvml).readings(0.0).gpu_busy is None

    def test_battery_and_the_hottest_sensor_are_read(self, tmp_path: Path) -> None:
        system = FakeSystem()
        assert sensors(tmp_path, system=system).readings(0.0).on_battery is None
        system.battery = SimpleNamespace(power_plugged=False)
        system.hot = {"coretemp": [SimpleNamespace(current=71.0)], "nvme": [SimpleNamespace(current=99.0)]}
        found = sensors(tmp_path, FakeNvml(4.0, 4.0), system).readings(0.0)
        assert (found.on_battery, found.temperature) == (True, 71.0)

    def test_this_very_machine_can_be_read(self) -> None:
        look = Sensors()
        assert 0 < look.hardware().memory_free <= look.hardware().memory_total
        look.readings(0.0)
        assert look.readings(1e9).cpu_busy is not None


class TestGuardrail:
    MODEL = Anatomy((Layer(100 * MIB, 4096.0),) * 32, 200 * MIB, 200 * MIB, False, 32_000, 4096, 8192)

    def guardrail(self, *gpus: float, **more: Any) -> Guardrail:
        look = sensors(Path("/nowhere"), FakeNvml(*gpus, driver=bool(gpus)))
        return Guardrail("X", self.MODEL, look.hardware, **more)

    def test_nvml_and_the_engine_name_the_same_gpu_by_its_address(self) -> None:
        devices = [Device("CUDA0", "0000:02:00.0", 8 * GIB, 8 * GIB), Device("CUDA1", "0000:01:00.0", 8 * GIB, 8 * GIB)]
        sizing = self.guardrail(0.5, 7.0).size(Load(4, 2048), devices)
        assert sizing.split == (33, 0)
        assert "7.0 of 8.0 GiB are free on GPU 1" in sizing.sentence

    def test_a_gpu_without_nvml_is_taken_at_its_drivers_word(self) -> None:
        sizing = self.guardrail().size(Load(4, 2048), [Device("Metal", "", 6 * GIB, 8 * GIB)])
        assert "6.0 of 8.0 GiB are free on Metal: all 32 layers go to the GPU." in sizing.sentence

    def test_a_build_for_processors_beside_a_gpu_is_told(self) -> None:
        sizing = self.guardrail(8.0).size(Load(4, 2048))
        assert sizing.gpu_layers == 0
        assert "GPU 0 (Model T) stays idle" in sizing.sentence
        assert "docs/how-to/gpu.md" in sizing.sentence

    def test_an_owner_who_wants_no_gpu_hears_of_none(self) -> None:
        sizing = self.guardrail(8.0, gpu_layers=0).size(Load(4, 2048), [Device("CUDA0", "0000:01:00.0", GIB, GIB)])
        assert (sizing.gpu_layers, "GPU" in sizing.sentence) == (0, False)

    def test_files_that_other_engines_have_mapped_are_not_free(self) -> None:
        def look() -> Hardware:
            return Hardware(4, int(5.5 * GIB), 8 * GIB)

        alone = Guardrail("X", self.MODEL, look)
        beside = Guardrail("X", self.MODEL, look, mapped_beside=lambda: GIB)
        assert alone.size(Load(4, 2048)).slots > beside.size(Load(4, 2048)).slots

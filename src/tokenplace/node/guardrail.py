"""The guardrail of one model: what it may take of this machine, decided afresh each time it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenplace.node.hardware import Gpu, Hardware
from tokenplace.node.memory import Anatomy, Load, Room, Sizing, size_up

_BUS_DIGITS = 12  # 0000:01:00.0, which NVML writes with a longer domain


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as the engine's library sees it: `bus` its PCI address where it has one; bytes as its driver tells."""

    name: str
    bus: str
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Guardrail:
    """`look` reads the machine. `headroom` is a fraction of what is taken.

    `gpu_layers` bounds what goes to GPUs (0: nothing). What the owner has set himself is not made fewer:
    `fixed_slots`, `fixed_context`. `mapped_beside` are the bytes of model files that other engines of this node have
    mapped: the system counts them as free though they are in use.
    """

    name: str
    model: Anatomy
    look: Callable[[], Hardware]
    headroom: float = 0.1
    gpu_layers: int | None = None
    fixed_slots: bool = False
    fixed_context: bool = False
    mapped_beside: Callable[[], int] = lambda: 0

    def size(self, load: Load, devices: Sequence[Device] = ()) -> Sizing:
        """What goes where now. Raises EngineError when there is no room at all."""
        here = self.look()
        return size_up(
            self.name,
            self.model,
            load,
            memory=Room("memory", max(0, here.memory_free - self.mapped_beside()), here.memory_total),
            gpus=[_room(device, here.gpus) for device in devices] if self.gpu_layers != 0 else [],
            headroom=self.headroom,
            most_layers=self.gpu_layers,
            shrink_slots=not self.fixed_slots,
            shrink_context=not self.fixed_context,
            note="" if devices or self.gpu_layers == 0 else _unused(here.gpus),
        )


def _room(device: Device, gpus: Sequence[Gpu]) -> Room:
    """The device with what NVML says of it, where it is one of NVIDIA's: the smaller number counts."""
    for gpu in gpus:
        if device.bus and gpu.bus.lower()[-_BUS_DIGITS:] == device.bus.lower()[-_BUS_DIGITS:]:
            return Room(gpu.title, min(gpu.free, device.free), gpu.total)
    return Room(device.name, device.free, device.total)


def _unused(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return ""
    names = " and ".join(f"{gpu.title} ({gpu.name})" for gpu in gpus)
    return (
        f"{names} stay{'s' * (len(gpus) == 1)} idle: the engine that is installed is the build for processors; "
        "docs/how-to/gpu.md tells how to get the other."
    )

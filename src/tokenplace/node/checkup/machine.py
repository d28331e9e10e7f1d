"""The machine: Python, packages, processor, memory, graphics card, disk. Standard library only, so that it can tell
which packages are missing; what needs one is handed in."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tokenplace.node.checkup.finding import Finding, bad, hint, ok

if TYPE_CHECKING:
    from tokenplace.node.hardware import Hardware

OLDEST_PYTHON = (3, 11)

HEADROOM = 0.2
"""The part of a model's size that contexts and buffers take beside it, for a first guess before it is loaded."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXACT = re.compile(r"==\s*([^\s;,]+)")


def python(running: Sequence[int] = sys.version_info[:3]) -> Finding:
    """The interpreter."""
    told = ".".join(map(str, running))
    if tuple(running[:2]) >= OLDEST_PYTHON:
        return ok("python", f"{told} at {sys.executable}")
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return bad("python", told, f"Install Python {wanted} or newer and make a new environment with it.")


def packages(requirements: Iterable[str] | None = None, installed: Callable[[str], str] = metadata.version) -> Finding:
    """What the node needs: everything of the extra `node`, and the pinned ones in their pinned version."""
    if requirements is None:
        try:
            requirements = metadata.requires("tokenplace") or []
        except metadata.PackageNotFoundError:
            return hint("packages", "token.place runs from a copied tree", "Install it with pip install '.[node]'.")
    missing, other, count = [], [], 0
    for line in requirements:
        named, _, condition = line.partition(";")
        extra = "extra ==" in condition
        if (extra and "'node'" not in condition.replace('"', "'")) or not (match := _NAME.match(named.strip())):
            continue
        count += 1
        try:
            found = installed(match[0])
        except metadata.PackageNotFoundError:
            missing.append(match[0])
            continue
        exact = _EXACT.search(named)
        if exact and exact[1] != found:
            other.append(f"{match[0]} {found} instead of {exact[1]}")
    todo = "In a clone: pip install -c constraints.txt '.[node]'"
    if missing:
        return bad("packages", f"not installed: {', '.join(missing)}", todo)
    if other:
        return bad("packages", f"another version is installed: {', '.join(other)}", todo)
    return ok("packages", f"{count} are here")


def processor(*, cores: int, machine: str | None = None, cpuinfo: str | None = None) -> Finding:
    """Cores that may be used, and whether the processor has the instructions the embedded engine is built for."""
    machine = (platform.machine() if machine is None else machine).lower()
    told = f"{cores} core{'' if cores == 1 else 's'}, {machine}"
    if cpuinfo is None:
        path = Path("/proc/cpuinfo")
        cpuinfo = path.read_text(errors="replace") if path.exists() else ""
    flags = set(re.findall(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)[:1])
    words = set(" ".join(flags).split())
    if machine in ("x86_64", "amd64") and words and "avx2" not in words:
        return hint(
            "processor",
            f"{told}, without AVX2",
            "The embedded engine may not start here; use a runner built for this machine: --engine http://127.0.0.1:…",
        )
    best = [name.upper() for name in ("avx2", "avx512f", "amx_int8") if name in words]
    return ok("processor", f"{told}{', ' + ', '.join(best) if best else ''}")


def memory(hardware: Hardware, model: int | None) -> Finding:
    """Free memory against a model of `model` bytes."""
    free = hardware.memory_free
    told = f"{free / 1e9:.1f} of {hardware.memory_total / 1e9:.1f} GB free"
    if model is None:
        return ok("memory", told)
    need = int(model * (1 + HEADROOM))
    room = max(free, *(gpu.free for gpu in hardware.gpus), 0)
    if room < need:
        return bad(
            "memory",
            f"{told}, the model wants about {need / 1e9:.1f} GB",
            "Close other programs, or choose a smaller model: `tokenplace bench` suggests one.",
        )
    return ok("memory", f"{told}, the model wants about {need / 1e9:.1f} GB")


def graphics(hardware: Hardware) -> Finding:
    """Graphics cards that NVML tells of. None is no fault."""
    if hardware.gpus:
        cards = (f"{gpu.name} ({gpu.free / 1e9:.1f} of {gpu.total / 1e9:.1f} GB free)" for gpu in hardware.gpus)
        return ok("graphics", ", ".join(cards))
    note = hardware.gpu_note or "none found"
    return ok("graphics", f"no NVIDIA GPU: {note}; the processor does the work")


def disk(folder: Path, free: int, missing: int) -> Finding:
    """Room for the `missing` bytes of a model that has to be fetched."""
    told = f"{free / 1e9:.1f} GB free for {folder}"
    if missing > free:
        return bad(
            "disk",
            f"{told}, {missing / 1e9:.1f} GB are to be fetched",
            "Make room, or set TOKEN_PLACE_MODELS_DIR to a folder on another disk.",
        )
    if not missing and free < 1e9:
        return hint("disk", told, "Make some room: updates and another model will want it.")
    return ok("disk", told)

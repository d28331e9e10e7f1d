"""What the doctor says of the machine."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from tokenplace.node.checkup import machine
from tokenplace.node.checkup.finding import Verdict
from tokenplace.node.hardware import Gpu, Hardware

NEEDS = [
    "httpx2>=2",
    'xllamacpp==1.2; extra == "node"',
    "structlog>=26; extra == 'node'",
    'fastapi; extra == "gateway"',
]


def test_an_old_python_is_told_with_the_one_to_install() -> None:
    assert machine.python((3, 11, 7)).verdict is Verdict.OK
    old = machine.python((3, 10, 2))
    assert old.verdict is Verdict.BAD
    assert "3.11" in old.todo


@pytest.mark.parametrize(
    ("here", "verdict", "seen"),
    [
        ({"httpx2": "2", "xllamacpp": "1.2", "structlog": "26"}, Verdict.OK, "3 are here"),
        ({"httpx2": "2", "structlog": "26"}, Verdict.BAD, "not installed: xllamacpp"),
        ({"httpx2": "2", "xllamacpp": "1.3", "structlog": "26"}, Verdict.BAD, "xllamacpp 1.3 instead of 1.2"),
    ],
)
def test_a_package_that_is_missing_or_another_than_the_pinned_is_named(
    here: dict[str, str], verdict: Verdict, seen: str
) -> None:
    def installed(name: str) -> str:
        try:
            return here[name]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    found = machine.packages(NEEDS, installed)
    assert (found.verdict, found.seen.startswith(seen) or seen in found.seen) == (verdict, True)
    assert (".[node]" in found.todo) is (verdict is Verdict.BAD)


def test_this_very_installation_is_complete() -> None:
    assert machine.packages().verdict is Verdict.OK


def test_a_processor_without_avx2_gets_a_hint() -> None:
    assert machine.processor(cores=2, machine="x86_64", cpuinfo="flags\t: fpu sse4_2 avx\n").verdict is Verdict.HINT
    good = machine.processor(cores=1, machine="x86_64", cpuinfo="flags\t: fpu avx2 avx512f\n")
    assert (good.verdict, good.seen) == (Verdict.OK, "1 core, x86_64, AVX2, AVX512F")
    assert machine.processor(cores=4, machine="aarch64", cpuinfo="Features : asimd\n").verdict is Verdict.OK


GPU = Gpu(0, "Card", "0:1", free=20 * 10**9, total=24 * 10**9)


def test_a_model_that_does_not_fit_into_memory_is_told_beforehand() -> None:
    small = Hardware(cores=2, memory_free=3 * 10**9, memory_total=8 * 10**9)
    assert machine.memory(small, 2 * 10**9).verdict is Verdict.OK
    big = machine.memory(small, 5 * 10**9)
    assert big.verdict is Verdict.BAD
    assert "tokenplace bench" in big.todo
    assert machine.memory(Hardware(2, 3 * 10**9, 8 * 10**9, gpus=(GPU,)), 5 * 10**9).verdict is Verdict.OK
    assert machine.memory(small, None).verdict is Verdict.OK


def test_a_card_is_named_and_none_is_no_fault() -> None:
    assert "Card (20.0 of 24.0 GB free)" in machine.graphics(Hardware(2, 1, 1, gpus=(GPU,))).seen
    none = machine.graphics(Hardware(2, 1, 1, gpu_note="no driver"))
    assert (none.verdict, "no driver" in none.seen) == (Verdict.OK, True)


def test_a_disk_without_room_for_the_model_is_told() -> None:
    assert machine.disk(Path("/m"), free=10**9, missing=5 * 10**9).verdict is Verdict.BAD
    assert machine.disk(Path("/m"), free=10**8, missing=0).verdict is Verdict.HINT
    assert machine.disk(Path("/m"), free=10**10, missing=10**9).verdict is Verdict.OK

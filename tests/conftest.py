"""What every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stage import Stage, staged


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Real programs for one test."""
    with staged(tmp_path) as made:
        yield made


WITH_PROGRAMS = ("acceptance", "faults", "docs", "contract", "deploy", "unit/node/engines", "unit/cli")
"""Folders whose tests start programs and wait for them: on a machine that others use too, one may be starved."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test with real programs is tried twice. The summary names whichever needed it: that is a fault to mend."""
    here = Path(__file__).parent
    for item in items:
        folder = item.path.parent.relative_to(here).as_posix()
        if any(folder == each or folder.startswith(each + "/") for each in WITH_PROGRAMS):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=2))

"""The pinned dependencies against the database of known weaknesses; `make audit` does the same for people."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_BESIDE = Path(sys.prefix) / "audit" / "bin" / "pip-audit"
TOOL = str(_BESIDE) if _BESIDE.exists() else shutil.which("pip-audit")


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.skipif(TOOL is None, reason="pip-audit is not here; `make audit` installs it")
def test_no_pinned_dependency_has_a_known_weakness(tmp_path: Path) -> None:
    assert TOOL is not None
    found = tmp_path / "found.json"
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--output", str(found)]
    command = [TOOL, "--requirement", str(ROOT / "constraints.txt"), *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=590, check=False)
    if not found.exists() or not (looked_up := _looked_up(found)):
        pytest.skip(
            f"the database of known weaknesses cannot be asked from here (pip-audit's status: {ran.returncode})"
        )
    weak = [
        f"{each['name']} {each['version']}: {[one['id'] for one in each['vulns']]}"
        for each in looked_up
        if each["vulns"]
    ]
    assert weak == []


def _looked_up(found: Path) -> list[dict[str, list[dict[str, str]]]]:
    """The dependencies that the database was really asked about."""
    return [each for each in json.loads(found.read_text())["dependencies"] if "skip_reason" not in each]

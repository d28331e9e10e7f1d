"""Prints what a blind relay needs of other people's packages: no `cryptography`, nothing of the client or a model."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

OF_THE_BASE = ("platformdirs", "typer")
EXTRAS = ("relay", "valkey")


def requirements(pyproject: Path) -> list[str]:
    """The requirements, one for each package."""
    project = tomllib.loads(pyproject.read_text())["project"]
    base = [each for each in project["dependencies"] if re.split(r"[^\w-]", each)[0] in OF_THE_BASE]
    extras = [each for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    return sorted({*base, *extras})


if __name__ == "__main__":
    print("\n".join(requirements(Path("pyproject.toml"))))

"""Builds `tokenplace-relay.pyz`: `python scripts/build_zipapp.py OUT`, the same bytes each time.

It takes the libraries that are installed beside it, native ones too, so the file is for this Python and this kind of
machine, and it needs no network. What opens content is left out: the relay in it could not read a word if it tried.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution, version
from pathlib import Path

from packaging.requirements import Requirement

from tokenplace.cli.zipped import BUILT_FOR, this_python

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "tokenplace"
LEFT_OUT = ("sealing", "openai", "client", "gateway", "node")
"""Rooms that hold keys or words."""

_OF_THE_BASE = ("platformdirs", "python-dotenv", "typer")
"""What a relay needs of the base install; the rest of it is the client's."""

_NOT_CONTENT = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})


def build(target: Path) -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        site.mkdir()
        for name in closure(relay_requirements()):
            copy_installed(name, site)
        copy_package(site)
        write(site / BUILT_FOR, json.dumps(this_python(), sort_keys=True))
        made = Path(folder) / "tokenplace-relay.pyz"
        command = [sys.executable, "-m", "shiv", "--reproducible", "--site-packages", str(site)]
        command += ["--entry-point", "tokenplace.cli.zipped:main", "--output-file", str(made)]
        quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
        subprocess.run([*command, "--python", "/usr/bin/env python3"], check=True, env=quiet)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, target)


def relay_requirements() -> list[Requirement]:
    """What a blind relay needs, as pyproject.toml says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = [Requirement(each) for each in project["dependencies"]]
    return [each for each in base if each.name in _OF_THE_BASE] + [
        Requirement(each) for each in project["optional-dependencies"]["relay"]
    ]


def closure(wanted: Iterable[Requirement]) -> list[str]:
    """Those distributions and all that they need here, by name."""
    waiting = [(each, {""} | each.extras) for each in wanted]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        for extra in extras:
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            for own in {""} | requirement.extras:
                if (requirement.name, own) not in seen:
                    seen.add((requirement.name, own))
                    needs = [Requirement(each) for each in distribution(requirement.name).requires or []]
                    waiting += [(each, {own}) for each in needs]
    return sorted({name for name, _ in seen})


def copy_installed(name: str, site: Path) -> None:
    """Copy one installed distribution; neither scripts nor compiled files."""
    for file in distribution(name).files or []:
        if ".." in file.parts or file.suffix == ".pyc" or file.name in _NOT_CONTENT:
            continue
        copy(Path(str(file.locate())), site / file)


def copy_package(site: Path) -> None:
    """Copy our own package, less what holds keys or words."""
    for file in sorted(PACKAGE.rglob("*")):
        inside = file.relative_to(PACKAGE)
        if file.is_file() and file.suffix != ".pyc" and inside.parts[0] not in LEFT_OUT:
            copy(file, site / "tokenplace" / inside)
    number = version("tokenplace")
    metadata = f"Metadata-Version: 2.1\nName: tokenplace\nVersion: {number}\n"
    write(site / f"tokenplace-{number}.dist-info" / "METADATA", metadata)


def copy(source: Path, target: Path) -> None:
    """Copy a file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)  # the mode is in the archive too, and a umask must change nothing


def write(target: Path, text: str) -> None:
    """Write a small file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="ascii")
    target.chmod(0o644)


if __name__ == "__main__":
    build(Path(sys.argv[1]))

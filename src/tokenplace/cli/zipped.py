"""The door of `tokenplace-relay.pyz`: a blind relay in one file, for the Python that it was built for."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

BUILT_FOR = "built-for.json"
"""Beside the package in the file: the Python and the machine whose native libraries it brings."""

_ITS_OWN = frozenset({"--version", "config"})


def this_python() -> dict[str, str]:
    """What native libraries are made for."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"implementation": sys.implementation.name, "python": version, "system": sys.platform,
            "machine": platform.machine()}  # fmt: skip


def main() -> None:
    """`python tokenplace-relay.pyz` is `tokenplace relay --blind`."""
    built_for = json.loads((Path(__file__).parents[2] / BUILT_FOR).read_text(encoding="ascii"))
    if built_for != this_python():
        sys.exit(refusal(built_for))

    from tokenplace.cli.main import app

    arguments = sys.argv[1:]
    app(arguments if arguments[:1] and arguments[0] in _ITS_OWN else ["relay", "--blind", *arguments])


def refusal(built_for: dict[str, str]) -> str:
    """What somebody reads who runs the file where it cannot run."""
    return f"tokenplace-relay.pyz: this file is for {_said(built_for)}; here is {_said(this_python())}."


def _said(what: dict[str, str]) -> str:
    return "{implementation} {python} on {system} {machine}".format(**what)

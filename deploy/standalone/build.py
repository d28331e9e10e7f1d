"""Builds `tokenplace` as one file to start, for people without Python: build.py FOLDER (PyInstaller must be here)."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def name() -> str:
    """What the file is called: the program, the system and the processor."""
    system = {"Darwin": "macos"}.get(platform.system(), platform.system().lower())
    return f"tokenplace-{system}-{platform.machine().lower()}"


def main() -> None:
    """Build."""
    folder = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as work:
        command = [
            *(sys.executable, "-m", "PyInstaller", "--noconfirm", "--onefile", "--log-level", "WARN"),
            *("--name", name(), "--distpath", str(folder), "--workpath", work, "--specpath", work),
            *("--collect-submodules", "tokenplace", "--collect-data", "tokenplace", "--copy-metadata", "tokenplace"),
            *("--collect-all", "xllamacpp", "--collect-submodules", "uvicorn", "--collect-data", "limits"),
            str(HERE / "program.py"),
        ]
        subprocess.run(command, check=True)
    print(next(folder.glob(name() + "*")))


if __name__ == "__main__":
    main()

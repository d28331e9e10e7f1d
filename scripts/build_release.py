"""Builds every file of a release into a directory: `python scripts/build_release.py [DIRECTORY]` (dist).

The wheel, the source, the page, the relay as one file, the digests that running programs tell of themselves
(`builds.txt`), and `checksums.txt` over all of it. Signing is a step of its own: `tokenplace release sign`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

from build_zipapp import PACKAGE, ROOT, build
from tokenplace.cli.release import write_checksums
from tokenplace.version import digest_of

_EPOCH = (1980, 1, 1, 0, 0, 0)


def build_release(target: Path) -> None:
    """Everything anew; what was in the directory before is gone."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "dist"
        made.mkdir()
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(made)]
        subprocess.run(command, check=True, cwd=ROOT, env={"SOURCE_DATE_EPOCH": "315532800", **os.environ})
        build_page(made / f"tokenplace-page-{version('tokenplace')}.zip")
        build(made / "tokenplace-relay.pyz")
        [wheel] = made.glob("*.whl")
        digests = {wheel.name: "tokenplace/", "tokenplace-relay.pyz": "site-packages/tokenplace/"}
        lines = [f"{digest_of(zipfile.Path(made / name, inside))}  {name}\n" for name, inside in digests.items()]
        (made / "builds.txt").write_text("".join(sorted(lines, key=lambda line: line.split()[1])))
        write_checksums(made)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made, target)


def build_page(target: Path) -> None:
    """The page's files as they are served, for whoever serves them from elsewhere."""
    site = PACKAGE / "web" / "site"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(site.rglob("*")):
            if file.is_file():
                info = zipfile.ZipInfo(file.relative_to(site).as_posix(), _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o100644 << 16
                archive.writestr(info, file.read_bytes())


if __name__ == "__main__":
    build_release(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist")

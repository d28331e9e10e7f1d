"""A small HTTP/1.1 server for the status page: h11 reads the bytes, asyncio moves them.

h11 is here anyway, because the HTTP client brings it; a framework and a server of full size would weigh more than all
the rest of what they serve. One request per connection, no bodies to speak of, and bounds on everything.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

import h11

from tokenplace.errors import TokenPlaceError

PATIENCE = 10.0
"""Seconds for a whole request and its answer."""

MOST_AT_ONCE = 32
"""Connections; who comes when there are more is hung up on."""

_MAX_HEAD = 16 * 1024
_MAX_BODY = 4 * 1024
_NEXT_PORTS = 50
_NO_HTTP = (
    b'{"error": {"message": "This is no proper HTTP request, or more than a status page takes.", '
    b'"type": "invalid_request_error", "param": null, "code": "bad_http"}}'
)


class StatusPortTaken(TokenPlaceError):
    """No port is free for the status page."""

    code = "status_port_taken"


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks. Header names are in lower case; `peer` is the address it came from."""

    method: str
    path: str
    headers: Mapping[str, str]
    peer: str


@dataclass(frozen=True, slots=True)
class Response:
    """One whole answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket at this port, or at the next one that is free. Raises StatusPortTaken."""
    problem = "no such address"
    for candidate in range(port, min(port + _NEXT_PORTS, 65536)):
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, candidate))
            listener.listen(64)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            problem = error.strerror or type(error).__name__
            if error.errno != errno.EADDRINUSE:
                break
        else:
            return listener
    raise StatusPortTaken(
        f"The status page cannot listen on {host}:{port} ({problem}); choose with --status-host, --status-port."
    )


@asynccontextmanager
async def answering(listener: socket.socket, answer: Callable[[Request], Response]) -> AsyncIterator[None]:
    """Serve while the block runs. `answer` is quick and does not raise for bad requests."""
    open_now: set[asyncio.StreamWriter] = set()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_now) >= MOST_AT_ONCE:
            writer.transport.abort()
            return
        open_now.add(writer)
        try:
            async with asyncio.timeout(PATIENCE):
                await _serve(reader, writer, answer)
        except (TimeoutError, OSError, h11.LocalProtocolError):
            writer.transport.abort()
        finally:
            open_now.discard(writer)
            writer.close()

    server = await asyncio.start_server(meet, sock=listener, limit=_MAX_HEAD)
    try:
        yield
    finally:
        server.close()
        for writer in list(open_now):
            writer.transport.abort()
        await server.wait_closed()


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Callable[[Request], Response]
) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
    request: Request | None = None
    try:
        request = await _read(connection, reader, writer)
    except h11.RemoteProtocolError as error:
        hint = error.error_status_hint
        status = hint if isinstance(hint, int) and 400 <= hint < 500 else HTTPStatus.BAD_REQUEST
        response = Response(status, _NO_HTTP, "application/json")
    else:
        if request is None:
            return
        response = answer(request)
    fields = [
        ("content-type", response.content_type),
        ("content-length", str(len(response.body))),
        ("connection", "close"),
        *response.headers.items(),
    ]
    reason = HTTPStatus(response.status).phrase
    out = connection.send(h11.Response(status_code=response.status, headers=fields, reason=reason)) or b""
    if request is None or request.method != "HEAD":
        out += connection.send(h11.Data(data=response.body)) or b""
        out += connection.send(h11.EndOfMessage()) or b""
    writer.write(out)
    await writer.drain()
    with suppress(OSError):
        writer.write_eof()


async def _read(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    """One request, its body thrown away. None when the other end left first. Raises RemoteProtocolError."""
    request: Request | None = None
    size = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
        elif isinstance(event, h11.Request):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            path = event.target.decode("latin-1").partition("?")[0]
            request = Request(event.method.decode("latin-1"), path, headers, writer.get_extra_info("peername")[0])
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > _MAX_BODY:
                raise h11.RemoteProtocolError("too much", error_status_hint=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif isinstance(event, h11.EndOfMessage):
            return request
        else:
            return None

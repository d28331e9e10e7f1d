"""uvicorn's HTTP for whatever the open internet sends: bounded heads, bounded waiting, errors a program can read.

    made ──first byte──▶ head ──whole──▶ body ──whole──▶ answering ──▶ kept alive ──first byte──▶ head
     │ 10 s               │ 10 s          │ 130 s                       │ 30 s
     ▼                    ▼               ▼                             ▼
    closed           408, closed     408, closed                      closed

The server's library bounds neither the time nor the size of a head, answers in plain text, writes its complaint about
a second request into the answer to the first, takes a client that has closed its sending half for one that left, waits
for ever for a reader that does not read, takes trailers for headers, and hands over to a WebSocket whatever asks for
one, where it may be met with silence.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tokenplace.cli.crowd import Crowd
from tokenplace.relay.asgi import ABORT, WRITE, WRITTEN, App, Message, Receive, Scope, Send, error_body
from tokenplace.wire.limits import MAX_REQUEST, KiB, MiB

MAX_HEAD = 32 * KiB
"""Bytes of a request's line and headers."""

MAX_HEADERS = 100
"""Headers of one request, its trailers among them."""

_HALF_CLOSED_PATIENCE = 0.2
"""Seconds an answer may take that a client with a closed sending half still gets: its closing may be its leaving."""

_UNREAD_AT_MOST = 1 * MiB
_UNREAD_PATIENCE = 1.0
"""A refused request is read a little further before the connection is closed, or the refusal would be lost with it."""

_LEFTOVER_AT_MOST = 2 * MAX_REQUEST
"""A body that was refused by its door is read to its end, so that the client hears why; unless it has none."""

_LEAST_TAKEN = 16 * KiB
"""What a reader of an answer takes between two looks at it, unless less is left."""

_CROWDED = 0.75
"""From this part of the connections there may be, none is kept alive between requests."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a server has for its clients."""

    head: float = 10.0
    """Seconds in which a request's head must be here."""
    body: float = 130.0
    """Seconds in which a request's body must be here: the doors' own bound, and a little, so that theirs is told."""
    unread: float = 60.0
    """Seconds in which a reader takes some of an answer that is whole."""
    unread_stream: float = 200.0
    """… and of one that is still being made: longer than the relay's own patience, so that its reason is counted."""
    connections: int = 60_000
    """Connections at once; one more is told to come back."""


class _Owed(Enum):
    """What the client has yet to send."""

    HEAD = "head"
    BODY = "body"


class _Refusal(NamedTuple):
    """What a client is told before its connection is closed."""

    status: HTTPStatus
    code: str
    message: str
    extra: bytes = b""
    """Further lines of the head."""


class _BadHead(Exception):
    """The head breaks a bound; raised through the parser."""


class HttpProtocol(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(self, *args: Any, bounds: Bounds, crowd: Crowd, **options: Any) -> None:
        super().__init__(*args, **options)
        self._written = 0
        """Bytes of pieces that went out the short way."""
        self._bounds = bounds
        self._crowd = crowd

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._bare_state = self.app_state
        self.app_state = {
            **self.app_state,
            ABORT: self.transport.abort,
            WRITE: self.write_piece,
            WRITTEN: lambda: self._written,
        }
        self._head_begun = False
        self._in_body = False
        self._head_bytes = 0
        """Received of a head that is not whole yet; the parser shows no header before its end."""
        self._header_count = self._header_bytes = 0
        self._wordless = 0
        """Received under a body without any of it: the parser keeps a trailer, however long, until it is whole."""
        self._waiting: _Owed | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: _Refusal | None = None
        self._unread: int | None = None
        """Bytes discarded since the connection was refused."""
        self._leftover = 0
        """Bytes of a request's body that came after its answer."""
        self._look: asyncio.TimerHandle | None = None
        """When the reader of the answers is looked at again."""
        self._untaken = 0
        """What it had not taken at the last look."""
        self._counted = self._crowd.came(self.client)
        if not self._counted:
            self._refuse(_TOO_MANY_OF_YOURS)
        elif len(self.connections) > self._bounds.connections:
            self._refuse(_TOO_MANY)
        else:
            self._wait_for(_Owed.HEAD)

    def write_piece(self, data: bytes) -> bool:
        """One more piece of the answer that is being sent, if it can go out at once."""
        cycle = self.cycle
        if (
            cycle is None
            or not (cycle.response_started and cycle.chunked_encoding)
            or cycle.response_complete
            or cycle.disconnected
            or self.flow.write_paused
        ):
            return False
        self._written += len(data)
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """… and gone."""
        self._wait_for(None)
        if self._look is not None:
            self._look.cancel()
        if self._counted:
            self._crowd.went(self.client)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._look_at_reader()

    def resume_writing(self) -> None:
        """… but it reads."""
        super().resume_writing()
        self._look_at_reader()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. If it waits for an answer that is on its way, it gets it."""
        cycle = self.cycle
        waits = cycle is not None and not cycle.response_started
        if not waits or self._in_body or self._head_begun:
            return False  # nobody is there, or a stream runs: who closes a stream has left it
        cycle.keep_alive = False
        self.loop.call_later(_HALF_CLOSED_PATIENCE, self.transport.close)
        return True

    def data_received(self, data: bytes) -> None:
        """Some bytes of the client."""
        if self._unread is not None:
            self._discard(len(data))
            return
        if self._head_begun:
            self._head_bytes += len(data)
        elif self._in_body:
            self._wordless += len(data)
        super().data_received(data)
        if (self._head_begun and self._head_bytes > MAX_HEAD) or (self._in_body and self._wordless > MAX_HEAD):
            self._refuse(_TOO_LONG)
        if not self.transport.is_closing() and self._unread is None:
            self._wait_for(_Owed.HEAD if self._head_begun else _Owed.BODY if self._in_body else None)

    def handle_websocket_upgrade(self) -> None:
        """Another protocol takes over."""
        self._head_begun = self._in_body = False
        self._wait_for(None)
        if self._look is not None:
            self._look.cancel()
        self._crowd.went(self.client)  # the other protocol counts it
        self.app_state = self._bare_state  # our ways in it would keep all of this alive as long as the WebSocket
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """The parser gave up."""
        self._refuse(self._refusal or _Refusal(HTTPStatus.BAD_REQUEST, code="bad_http", message=msg))

    # -- the parser's calls ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head_begun = True
        self._head_bytes = self._header_count = self._header_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, of the head or of the trailers."""
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        self._wordless = 0
        if self._header_count > MAX_HEADERS or self._header_bytes > MAX_HEAD:
            self._refusal = _TOO_LONG
            raise _BadHead
        if not self._in_body:  # a trailer must not pass for a header that a proxy wrote (RFC 9110 section 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._head_begun = False
        upgrade = self.parser.should_upgrade()
        websocket = upgrade and self._should_upgrade()
        self._refusal = _fault_in(self.url, self.headers, self.parser.get_http_version())
        if websocket and self._refusal is None:
            self._refusal = _no_websocket(self.parser.get_method(), self.headers)
            if self.cycle is not None and not self.cycle.response_complete:
                self._refusal = _NOT_YET
        if self._refusal is not None:
            raise _BadHead
        super().on_headers_complete()
        self._in_body = True
        self._wordless = 0
        if websocket:
            return
        # After a wish for yet another protocol the parser reads no second request.
        if upgrade or len(self.connections) > _CROWDED * self._bounds.connections:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._wordless = 0
        if self.cycle is not None and self.cycle.response_complete:
            self._leftover += len(body)
            if self._leftover > _LEFTOVER_AT_MOST:
                self.transport.close()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A body is whole."""
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is out; what is left of the request's body may not take long."""
        super().on_response_complete()
        self._leftover = 0
        self._look_at_reader()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _should_upgrade(self) -> bool:
        """Whether this head asks for a WebSocket; one of HTTP/1.0 cannot (RFC 9110 section 7.8)."""
        return self.parser.get_http_version() == "1.1" and super()._should_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.scope["http_version"] == "1.0":
            app = _to_the_end(cycle, app)
        super()._start_asgi_task(cycle, app)

    def _look_at_reader(self) -> None:
        """Give the client time to take what it has not taken yet."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._untaken = self.transport.get_write_buffer_size()
        if self._untaken:
            cycle = self.cycle
            streams = cycle is not None and cycle.response_started and not cycle.response_complete
            patience = self._bounds.unread_stream if streams else self._bounds.unread
            self._look = self.loop.call_later(patience, self._looked)

    def _looked(self) -> None:
        self._look = None
        left = self.transport.get_write_buffer_size()
        if left and self._untaken - left < _LEAST_TAKEN:
            self.transport.abort()  # closing would wait for the reader too
            return
        self._look_at_reader()

    def _wait_for(self, owed: _Owed | None) -> None:
        if owed is self._waiting:
            return
        self._waiting = owed
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if owed is not None:
            patience = self._bounds.head if owed is _Owed.HEAD else self._bounds.body
            self._timer = self.loop.call_later(patience, self._too_late)

    def _too_late(self) -> None:
        if self.transport.is_closing():
            return
        answered = self.cycle is not None and self.cycle.response_complete
        if not self._head_begun and (self._waiting is _Owed.HEAD or answered):
            self.transport.close()  # there is no request to refuse
            return
        self._refuse(_TOO_LATE)

    def _refuse(self, refusal: _Refusal) -> None:
        """Tell what is wrong and close; or only close, where that would land in the middle of another answer."""
        self._wait_for(None)
        cycle = self.cycle
        if cycle is not None and cycle.response_complete and self._in_body:
            self.transport.close()  # this request was answered: another answer would be taken for the next one's
            return
        if cycle is not None and not cycle.response_complete:
            started = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
            if started or self.pipeline:
                self.transport.close()
                return
        self.transport.write(_answer(refusal))
        self._unread = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_UNREAD_PATIENCE, self.transport.abort)

    def _discard(self, size: int) -> None:
        self._unread = (self._unread or 0) + size
        if self._unread > _UNREAD_AT_MOST:
            self.transport.abort()


_TOO_LONG = _Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    code="headers_too_large",
    message=f"A request has at most {MAX_HEADERS} headers, and {MAX_HEAD} bytes of them.",
)
_LONG_PATH = _Refusal(
    HTTPStatus.REQUEST_URI_TOO_LONG, code="uri_too_long", message=f"A path has at most {MAX_HEAD // 2} bytes."
)
_TOO_LATE = _Refusal(HTTPStatus.REQUEST_TIMEOUT, code="request_timeout", message="The request did not arrive in time.")
_LATER = b"retry-after: 5\r\n"
_TOO_MANY = _Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    code="too_many_connections",
    message="Too many connections; come back soon.",
    extra=_LATER,
)
_TOO_MANY_OF_YOURS = _Refusal(
    HTTPStatus.TOO_MANY_REQUESTS,
    code="too_many_connections",
    message="Too many connections from your address; close some, or come back soon.",
    extra=_LATER,
)
_ONE_HOST = _Refusal(
    HTTPStatus.BAD_REQUEST, code="bad_host", message="A request names its host once, in one Host header."
)
_ONLY_GET = _Refusal(
    HTTPStatus.METHOD_NOT_ALLOWED,
    code="method_not_allowed",
    message="A WebSocket begins with GET.",
    extra=b"allow: GET\r\n",
)
_NO_BODY = _Refusal(
    HTTPStatus.BAD_REQUEST, code="bad_handshake", message="A WebSocket begins with a request that has no body."
)
_NOT_YET = _Refusal(
    HTTPStatus.BAD_REQUEST, code="bad_handshake", message="A WebSocket begins when what was asked before is answered."
)
_OTHER_VERSION = _Refusal(
    HTTPStatus.UPGRADE_REQUIRED,
    code="bad_handshake",
    message="Sec-WebSocket-Version is 13.",
    extra=b"upgrade: websocket\r\nsec-websocket-version: 13\r\n",
)


def _fault_in(url: bytes, headers: Sequence[tuple[bytes, bytes]], version: str) -> _Refusal | None:
    """What is wrong with a head that can be read."""
    if len(url) > MAX_HEAD // 2:
        return _LONG_PATH
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (not hosts and version == "1.1"):  # RFC 9112 section 3.2
        return _ONE_HOST
    return None


def _no_websocket(method: bytes, headers: Sequence[tuple[bytes, bytes]]) -> _Refusal | None:
    """What is wrong with a head that asks for a WebSocket, as far as the WebSocket's library would say nothing."""
    if method != b"GET":
        return _ONLY_GET
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            return _NO_BODY
        if name == b"sec-websocket-version" and value != b"13":
            return _OTHER_VERSION
    return None


def _to_the_end(cycle: RequestResponseCycle, app: App) -> App:
    """The application for a client of HTTP/1.0, which knows no chunks: what has no length goes on until the close."""

    async def for_old_clients(scope: Scope, receive: Receive, send: Send) -> None:
        endless = False

        async def told(message: Message) -> None:
            nonlocal endless
            if message["type"] == "http.response.start":
                endless = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                if endless:  # as if a length had been given that nothing reaches
                    cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize
            elif endless and not message.get("more_body", False):
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, told)

    return for_old_clients


def _answer(refusal: _Refusal) -> bytes:
    status = refusal.status
    body = error_body(status, refusal.code, refusal.message)
    head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n"
    return head % (status, status.phrase.encode(), len(body), refusal.extra) + body

"""uvicorn's WebSocket for the node link, with a short way for what nearly everything is.

A node's record arrives as one whole, masked, binary frame. Once the relay has asked to be handed messages directly,
frames are cut here and such a frame goes straight to the relay; every other one (control frames, fragments, frames
that break the rules) goes whole through the library, which answers as it always does. The library's way costs five
times as much for each of the pieces that a relay forwards.

What the library leaves open is closed here: a handshake that it cannot read is answered, and each failure in JSON; a
peer that sends without reading makes nothing grow, neither by pings nor by fragments.

A relay holds thousands of links that do nothing, so what the library keeps for each counts: its queue and its event
are made of double-ended queues of 600 bytes, empty or not, and it never lets go of the handshake.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import StatusLike
from websockets.utils import apply_mask as apply_mask_slowly

from tokenplace.cli.crowd import Crowd
from tokenplace.relay.asgi import ABORT, DIRECT, error_body
from tokenplace.wire.limits import MAX_MESSAGE

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel for this platform
    apply_mask = apply_mask_slowly

_WHOLE_BINARY = 0x82
_MASKED = 0x80
_MASK_BYTES = 4
_LONGEST_HEADER = 14
_HANDSHAKE = 10.0
"""Seconds in which the door has opened a link or refused it."""


def frame_size(data: bytes, start: int) -> tuple[int, int] | None:
    """Of the frame that begins at `start`: bytes before its payload, and of its payload. None: more must come first.

    RFC 6455 section 5.2.
    """
    left = len(data) - start
    if left < 2:
        return None
    second = data[start + 1]
    mask = _MASK_BYTES if second & _MASKED else 0
    length = second & 0x7F
    extended = {126: 2, 127: 8}.get(length, 0)
    if left < 2 + extended:
        return None
    if extended:
        length = int.from_bytes(data[start + 2 : start + 2 + extended], "big")
    return 2 + extended + mask, length


def lone_frame(data: bytes) -> int:
    """Where the payload begins if this is one whole binary frame, masked and of fewer than 64 KiB; else 0.

    That is what a node's record is, and how it is mostly read.
    """
    size = len(data)
    if size < 6 or data[0] != _WHOLE_BINARY:
        return 0
    second = data[1]
    if second == _MASKED | 126:
        return 8 if size == 8 + (data[2] << 8 | data[3]) else 0
    return 6 if second >= _MASKED and size == 6 + (second & 0x7F) else 0


class Gate:
    """What the library needs of an asyncio.Event, at a tenth of its size."""

    __slots__ = ("_closed", "_waiting")

    def __init__(self) -> None:
        self._closed = False
        self._waiting: list[asyncio.Future[None]] | None = None

    def set(self) -> None:
        """Open it: whoever waits goes on."""
        self._closed = False
        waiting, self._waiting = self._waiting, None
        for waiter in waiting or ():
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Close it."""
        self._closed = True

    async def wait(self) -> None:
        """Until it is open."""
        while self._closed:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting = [*(self._waiting or ()), waiter]
            await waiter


class Inbox:
    """What the library needs of an asyncio.Queue with one reader, at a tenth of its size."""

    __slots__ = ("_items", "_waiter")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, item: Any) -> None:
        """Add one."""
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """Take the first, once there is one."""
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._items.pop(0)  # the library stops reading at one message: this list is never long

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._items


_CODES = {
    HTTPStatus.FORBIDDEN: "refused",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_URI_TOO_LONG: "uri_too_long",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "headers_too_large",
    HTTPStatus.INTERNAL_SERVER_ERROR: "token_place_error",
}


class Handshake(ServerProtocol):
    """The library's half of a WebSocket, with refusals that a program can read."""

    def reject(self, status: StatusLike, text: str) -> Response:
        """An answer that opens no WebSocket."""
        status = HTTPStatus(status)
        message = text.partition("\n")[0] or "No WebSocket is spoken at this path."
        response = super().reject(status, "")
        response.body = error_body(status, _CODES.get(status, "bad_handshake"), message)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(response.body)))):
            del response.headers[name]  # setting it would add another
            response.headers[name] = value
        return response


class LinkProtocol(WebSocketsSansIOProtocol):
    """A WebSocket that can hand messages straight to a callable."""

    _taker: Callable[[bytes], None] | None = None
    _wanted = 0
    """Bytes at which the frame in `_partial` may be whole: a frame that trickles in is not looked at for each byte."""
    _full = False
    """Whether the peer does not read what is written."""
    _pong = b""
    """What its last ping is owed once it reads."""

    def __init__(self, *args: Any, crowd: Crowd, **options: Any) -> None:
        super().__init__(*args, **options)
        self._crowd = crowd
        self.conn = Handshake(max_size=self.config.ws_max_size, logger=logging.getLogger("uvicorn.error"))
        self.queue = Inbox()  # type: ignore[assignment]  # it puts, gets and asks whether it is empty, no more
        self.writable = Gate()  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Leave the doors their ways to take messages and to cut the connection."""
        super().connection_made(transport)
        self._counted = self._crowd.came(self.client)
        self._partial = bytearray()
        self._deadline = self.loop.call_later(_HANDSHAKE, self._too_late)
        self.app_state = {**self.app_state, DIRECT: self._give_to, ABORT: self.transport.abort}

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone."""
        self._deadline.cancel()
        if self._counted:
            self._crowd.went(self.client)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer does not read as fast as it is told."""
        super().pause_writing()
        self._full = True

    def resume_writing(self) -> None:
        """… but it reads."""
        super().resume_writing()
        self._full = False
        pong, self._pong = self._pong, b""
        if pong and not self.transport.is_closing():
            self.transport.write(pong)

    def shutdown(self) -> None:
        """The server stops."""
        if not self.handshake_complete and self.conn.eof_sent:  # refused: the library would refuse once more
            self.transport.close()
            return
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Bytes from the network."""
        if self._taker is None:
            super().data_received(data)
            if self.conn.handshake_exc is not None and not self.handshake_initiated:
                self._refuse()
            return
        body = 0 if self._partial or self.frames else lone_frame(data)
        if body and self.conn.state is OPEN:
            self._taker(apply_mask(data[body:], data[body - _MASK_BYTES : body]))
            return
        if self._partial:
            self._partial += data
            if len(self._partial) < self._wanted:
                return
            data = bytes(self._partial)
            self._partial.clear()
        start = 0
        self._wanted = 0
        while start < len(data):
            size = frame_size(data, start)
            if size is None:
                break
            header, length = size
            if length > MAX_MESSAGE:
                super().data_received(data[start : start + _LONGEST_HEADER])  # the library closes, with the code for it
                return
            end = start + header + length
            if end > len(data):
                self._wanted = end - start
                break
            short = data[start] == _WHOLE_BINARY and data[start + 1] & _MASKED and not self.frames
            if short and self.conn.state is OPEN:
                body = start + header
                self._taker(apply_mask(data[body:end], data[body - _MASK_BYTES : body]))
            else:
                super().data_received(data[start:end])
            start = end
        if start < len(data):
            self._partial += data[start:]

    def handle_ping(self) -> None:
        """A ping; of those that arrive while the peer does not read, the last is answered (RFC 6455 section 5.5.3)."""
        if not self._full:
            super().handle_ping()
        elif pong := b"".join(self.conn.data_to_send()):
            self._pong = pong

    def handle_cont(self, event: Frame) -> None:
        """A further fragment of a message. They are joined as they come: a million of one byte take a megabyte."""
        if len(self.frames) == 1:
            self.frames.append(bytearray())  # type: ignore[arg-type]  # it joins them, no more
        self.frames[1] += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """A message that came the library's way."""
        if self._taker is None or self.curr_msg_data_type != "bytes" or self.close_sent:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        self._taker(data)

    def _refuse(self) -> None:
        """The library could not read the handshake; sometimes it says so."""
        said = b"".join(self.conn.data_to_send())
        if not said:
            self.transport.write(_CANNOT_BE_READ)
        self.transport.write(said)
        self.transport.close()

    def _too_late(self) -> None:
        if not self.handshake_complete:
            self.transport.abort()

    def _give_to(self, taker: Callable[[bytes], None]) -> None:
        if not self.conn.reader.buffer:  # a peer that spoke before it was asked stays with the library
            self._taker = taker
        del self.request, self.response  # the handshake is over


_WHY = error_body(HTTPStatus.BAD_REQUEST, "bad_handshake", "The request for a WebSocket cannot be read.")
_CANNOT_BE_READ = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
) % (len(_WHY), _WHY)

"""Listening and serving HTTP: what relay and gateway have in common."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tokenplace.cli.link_protocol import LinkProtocol
from tokenplace.errors import TokenPlaceError
from tokenplace.relay.asgi import ABORT, App
from tokenplace.wire.limits import CLIENT_SOCKET_SEND_BUFFER, MAX_MESSAGE

_NEXT_PORTS = 50


class PortTaken(TokenPlaceError):
    """Another program listens on this port already."""

    code = "port_taken"


def bind(host: str, port: int, *, or_next: bool = False) -> socket.socket:
    """A listening socket; with `or_next` the next free port when this one is taken. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, port + (_NEXT_PORTS if or_next and port else 1)):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: without a bound the kernel takes megabytes for each reader who does not read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CLIENT_SOCKET_SEND_BUFFER)
        # asyncio sets it only on sockets made with proto TCP; without it a small answer waits 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(2048)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise PortTaken(
                    f"Cannot listen on {host}:{candidate} ({error.strerror}); choose with --host, --port."
                ) from None
            problem = error
        else:
            listener.setblocking(False)
            return listener
    hint = " On macOS, AirPlay Receiver uses port 5000." if sys.platform == "darwin" and port == 5000 else ""
    raise PortTaken(f"Cannot listen on {host}:{port} ({problem.strerror}).{hint} Choose another with --port.")


def address_of(listener: socket.socket) -> str:
    """Where a person or program on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP, which leaves the relay a way to cut a connection whose reader has stalled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.app_state = {**self.app_state, ABORT: self.transport.abort}


class _Server(uvicorn.Server):
    """uvicorn without hands on our signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: App, listener: socket.socket) -> AsyncIterator[None]:
    """Serve `app` while the block runs; afterwards nothing listens any more."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws=LinkProtocol,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        ws_max_size=MAX_MESSAGE,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        lifespan="on",
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))  # awaited below, whatever happens
    try:
        while not server.started:
            if task.done():
                raise TokenPlaceError("The server did not start.")
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task

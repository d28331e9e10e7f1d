"""Listening and serving HTTP: what relay and gateway have in common."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import ip_address

import uvicorn

from tokenplace.cli.crowd import Crowd, on_this_machine, share_of
from tokenplace.cli.http_protocol import Bounds, HttpProtocol
from tokenplace.cli.link_protocol import LinkProtocol
from tokenplace.errors import TokenPlaceError
from tokenplace.relay.address import Client
from tokenplace.relay.asgi import App
from tokenplace.wire.limits import CLIENT_SOCKET_SEND_BUFFER, MAX_MESSAGE

_NEXT_PORTS = 50
_MOST_FILES = 65_536
_OTHER_FILES = 100
"""Files that are no connections: the store, the model's files, logs."""


class PortTaken(TokenPlaceError):
    """Another program listens on this port already."""

    code = "port_taken"


_LAST_PORT = 65_535


def bind(host: str, port: int, *, or_next: bool = False) -> socket.socket:
    """A listening socket; with `or_next` the next free port when this one is taken. Raises PortTaken."""
    if not 0 <= port <= _LAST_PORT:
        raise PortTaken(f"There is no port {port}: they go from 1 to {_LAST_PORT}, and 0 is any that is free.")
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


def max_files() -> int:
    """How many files this process may have open, after asking for as many as it may ask for."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows counts otherwise
        return _MOST_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):  # macOS has a lower bound that it does not tell
        return soft
    return wanted


class _Server(uvicorn.Server):
    """uvicorn without hands on our signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(
    app: App,
    listener: socket.socket,
    bounds: Bounds | None = None,
    *,
    spared: Callable[[Client], bool] = on_this_machine,
) -> AsyncIterator[None]:
    """Serve `app` while the block runs; afterwards nothing listens any more.

    One address may have a share of the connections; `spared` says which may have all of them. Raises TokenPlaceError
    where it cannot serve.
    """
    bounds = bounds or Bounds(connections=max_files() - _OTHER_FILES)
    crowd = Crowd(share_of(bounds.connections), spared)
    config = uvicorn.Config(
        app,
        http=partial(HttpProtocol, bounds=bounds, crowd=crowd),  # type: ignore[arg-type]  # it calls it, no more
        ws=partial(LinkProtocol, crowd=crowd),  # type: ignore[arg-type]
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        ws_max_size=MAX_MESSAGE,
        log_config=None,
        log_level="error",  # its warnings are about what strangers send
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

"""The least that forwarding a piece costs on this machine: a bare copier on the same loop, between sockets.

It knows no frames, no credit and no clients: what comes with a number goes to the connection of that number, in a chunk
of HTTP. The relay's cost per piece is told beside it, since processors and kernels differ by more than releases do.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import cast

from bench.crowd import PIECE, cpu_of, pace
from puppets import wired

_NUMBER = 4
_SIZE = _NUMBER + PIECE
_LINKS = 8


class _Source(asyncio.Protocol):
    """What sends pieces, each with the number of the reader it is for."""

    def __init__(self, readers: list[asyncio.WriteTransport]) -> None:
        self._readers = readers

    def data_received(self, data: bytes) -> None:
        """Pieces arrive whole: they are small, and one message each."""
        for start in range(0, len(data), _SIZE):
            piece = data[start + _NUMBER : start + _SIZE]
            number = int.from_bytes(data[start : start + _NUMBER], "big")
            self._readers[number].write(b"%x\r\n%b\r\n" % (len(piece), piece))


class _Reader(asyncio.Protocol):
    def __init__(self, readers: list[asyncio.WriteTransport]) -> None:
        self._readers = readers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The next number is this one's."""
        writer = cast("asyncio.WriteTransport", transport)
        self._readers.append(writer)
        writer.write(b"!")


async def _copy() -> None:
    loop = asyncio.get_running_loop()
    readers: list[asyncio.WriteTransport] = []
    servers = [
        await loop.create_server(lambda kind=kind: kind(readers), "127.0.0.1", 0)  # type: ignore[misc]
        for kind in (_Source, _Reader)
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def per_piece(*, streams: int, rate: float, seconds: float) -> float:
    """µs of the copier's processor time for each piece, paced like the streams of `crowd`."""
    copier = subprocess.Popen(
        [sys.executable, "-m", "bench.bare"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert copier.stdout is not None
        ports = [int(port) for port in copier.stdout.readline().split()]
        sources = [socket.create_connection(("127.0.0.1", ports[0])) for _ in range(_LINKS)]
        for source in sources:
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with wired() as wires:
            readers = [_Counter(ports[1]) for _ in range(streams)]
            for reader in readers:
                wires.add(reader)
            turns = [_sending(sources[number % _LINKS], number) for number in range(streams)]
            pace(wires, turns, rate, 2.0)
            before, spent = sum(reader.heard for reader in readers), cpu_of(copier.pid)
            pace(wires, turns, rate, seconds)
            spent = cpu_of(copier.pid) - spent
            return spent / (sum(reader.heard for reader in readers) - before) * (PIECE + 6) * 1e6
    finally:
        copier.kill()
        copier.communicate()


class _Counter:
    """A reader that counts bytes."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.sock.recv(1)  # it has its number
        self.heard = 0

    def readable(self) -> None:
        """Some came."""
        self.heard += len(self.sock.recv(1 << 16))


def _sending(source: socket.socket, number: int) -> Callable[[], object]:
    message = number.to_bytes(_NUMBER, "big") + bytes(PIECE)
    return lambda: source.send(message)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(_copy())
    else:
        uvloop.run(_copy())

"""Nodes and readers for load and for mischief: many in one lean process, over real sockets, on one epoll.

A puppet node speaks the link, signs with an identity of its own, and does what it is told; a reader is one client's
connection. Neither seals anything: to a relay sealed bytes are bytes. So the process that makes the load leaves the
relay a core of its own.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from tokenplace.link.ends import NodeEnd
from tokenplace.link.events import Challenged, NodeEvent, Offered, Rewound, Welcomed
from tokenplace.sealing.identity import Identity
from tokenplace.sealing.keys import SealingPrivateKey
from tokenplace.wire import request, routes
from tokenplace.wire.card import CardBody, ModelCard, SealingKey
from tokenplace.wire.ids import JobId, ModelId, NodeId, Sid
from tokenplace.wire.messages import Hello, Outcome, Reason
from tokenplace.wire.request import Kem, RequestHeader
from tokenplace.wire.stream import NONCE_BYTES, Record, RecordKind

DONE = Reason(Outcome.DONE)
PATIENCE = 20.0
_READ = 1 << 16


class Gone(Exception):
    """The relay closed a link; says with which code and why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Wire(Protocol):
    """Something with a socket."""

    sock: socket.socket

    def readable(self) -> None:
        """There is something to read."""


class Wires:
    """Everything that waits for the relay, on one epoll."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._wires: dict[int, Wire] = {}

    def add(self, wire: Wire) -> None:
        """Watch it from now on."""
        wire.sock.setblocking(False)
        self._wires[wire.sock.fileno()] = wire
        self._poll.register(wire.sock.fileno(), select.EPOLLIN)

    def drop(self, wire: Wire) -> None:
        """Close it."""
        number = wire.sock.fileno()
        if number >= 0 and self._wires.pop(number, None) is not None:
            self._poll.unregister(number)
        wire.sock.close()

    def turn(self, seconds: float = 0.0) -> None:
        """Let everybody read who can."""
        for number, _ in self._poll.poll(seconds, 4096):
            wire = self._wires.get(number)
            if wire is not None:
                wire.readable()

    def spend(self, seconds: float) -> None:
        """Turn for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.turn(left)

    def until(self, true: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Turn until something holds. Bounded; the failure says what was waited for."""
        deadline = time.monotonic() + patience
        while not true():
            assert time.monotonic() < deadline, f"waited {patience} s for: {what}"
            self.turn(0.02)

    def clear(self) -> None:
        """Close everything."""
        for wire in list(self._wires.values()):
            self.drop(wire)
        self._poll.close()


@contextmanager
def wired() -> Iterator[Wires]:
    """Wires that are closed at the end."""
    wires = Wires()
    try:
        yield wires
    finally:
        wires.clear()


def frame(data: bytes) -> bytes:
    """A masked binary WebSocket frame. The mask is zero: this is a test, and masking costs time."""
    size = len(data)
    if size < 126:
        return bytes((0x82, 0x80 | size)) + bytes(4) + data
    if size < 1 << 16:
        return b"\x82\xfe" + size.to_bytes(2, "big") + bytes(4) + data
    return b"\x82\xff" + size.to_bytes(8, "big") + bytes(4) + data


class Puppet:
    """One node's link. `on_event` is told of everything but the greeting.

    `sealing` also gives its card keys that clients can seal to; what they then send it nobody opens.
    """

    def __init__(
        self,
        wires: Wires,
        url: str,
        *,
        slots: int = 64,
        models: tuple[str, ...] = ("puppet",),
        on_event: Callable[[Puppet, NodeEvent], None] = lambda _, event: None,
        identity: Identity | None = None,
        sealing: bool = False,
        buffer: int | None = None,
    ) -> None:
        self.wires = wires
        self.identity = identity or Identity.generate()
        self.id: NodeId = self.identity.node
        self.end = NodeEnd()
        self.slots = slots
        self.on_event = on_event
        self.heard: list[NodeEvent] = []
        self.live = False
        self.gone: Gone | None = None
        self._authority = urlsplit(url).netloc
        self._inbox = bytearray()
        self._outbox = bytearray()
        now_ms = time.time_ns() // 1_000_000
        self.card = self.identity.sign_card(
            CardBody(
                identity=self.identity.public,
                sequence=now_ms,
                issued_ms=now_ms,
                keys=(_a_key(now_ms),) if sealing else (),
                models=tuple(ModelCard(ModelId(model), 4096) for model in models),
            )
        )
        self.sock = self._dial(buffer)
        wires.add(self)
        self._read()

    def _dial(self, buffer: int | None) -> socket.socket:
        host, port = self._authority.split(":")
        sock = socket.socket()
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.connect((host, int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(PATIENCE)
        sock.sendall(
            f"GET {routes.LINK} HTTP/1.1\r\nhost: {self._authority}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n".encode()
        )
        got = b""
        while b"\r\n\r\n" not in got:
            more = sock.recv(_READ)
            if not more:
                raise ConnectionError("the relay hung up in the handshake")
            got += more
        head, _, rest = got.partition(b"\r\n\r\n")
        assert b" 101 " in head.split(b"\r\n", 1)[0], head
        self._inbox += rest
        return sock

    def readable(self) -> None:
        """Bytes of the relay."""
        try:
            data = self.sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._over(Gone(1006, "the connection ended without a word"))
            return
        self._inbox += data
        self._read()

    def _read(self) -> None:
        for opcode, message in self._messages():
            if opcode == 8:
                self._over(Gone(int.from_bytes(message[:2], "big"), message[2:].decode()))
                return
            if opcode == 2:
                for event in self.end.receive(message, time.monotonic()):
                    self._hear(event)
        self.flush()

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        inbox = self._inbox
        while len(inbox) >= 2:
            size, start = inbox[1] & 0x7F, 2
            if size == 126:
                size, start = int.from_bytes(inbox[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(inbox[2:10], "big"), 10
            if len(inbox) < start + size:
                return
            opcode, message = inbox[0] & 0x0F, bytes(inbox[start : start + size])
            del inbox[: start + size]
            yield opcode, message

    def _hear(self, event: NodeEvent) -> None:
        match event:
            case Challenged(nonce=nonce):
                signature = self.identity.sign_hello(nonce, self._authority)
                self.end.hello(Hello(self.card, signature, self._authority, self.slots))
            case Welcomed():
                self.live = True
            case _:
                self.heard.append(event)
                self.on_event(self, event)

    def _over(self, gone: Gone) -> None:
        self.live = False
        self.gone = self.gone or gone
        self.wires.drop(self)

    def flush(self) -> None:
        """Send what the end has to say, one message after the other."""
        while message := self.end.take():
            self.say(message)

    def say(self, message: bytes) -> None:
        """Send one message, made of frames or of anything else."""
        self._send(frame(message))

    def _send(self, data: bytes) -> None:
        if self._outbox:
            self._outbox += data
            data = bytes(self._outbox)
            self._outbox.clear()
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # what the relay said last is still to be read
        if sent < len(data):
            self._outbox += data[sent:]

    def piece(self, sid: Sid, number: int, data: bytes) -> None:
        """Send one record of an answer."""
        self.end.data(sid, number, data)
        self.flush()

    def answer(self, sid: Sid, pieces: int, data: bytes) -> None:
        """A whole answer at once, each piece a message of its own."""
        self.end.accept(sid, 0)
        for number in range(pieces):
            self.end.data(sid, number, data)
            self.flush()
        self.end.end(sid, pieces, DONE, self.slots)
        self.flush()

    def offers(self) -> list[Offered]:
        """The offers heard so far."""
        return [event for event in self.heard if isinstance(event, Offered)]

    def hang_up(self) -> None:
        """As when the process dies."""
        self._over(Gone(0, "hung up"))


def _a_key(now_ms: int) -> SealingKey:
    return SealingPrivateKey.generate(now_ms=now_ms, kem=Kem.X25519).public()


def puppets(wires: Wires, url: str, count: int, **options: object) -> list[Puppet]:
    """So many nodes that the relay has welcomed."""
    made: list[Puppet] = []
    for start in range(0, count, 64):
        some = [Puppet(wires, url, **options) for _ in range(min(64, count - start))]  # type: ignore[arg-type]
        wires.until(lambda some=some: all(each.live for each in some), "the welcome")  # type: ignore[misc]
        made += some
    return made


def unknown(node: Puppet, event: NodeEvent) -> None:
    """A node that holds nothing of what it is asked to go on with."""
    if isinstance(event, Rewound):
        node.end.reject(event.sid, Reason("job_unknown"))


@contextmanager
def playing(url: str, play: Callable[[Puppet, Sid], None], count: int = 1) -> Iterator[list[Puppet]]:
    """Puppets in a thread of their own that do `play` with every offer; real clients can seal to them."""
    over, ready = threading.Event(), threading.Event()
    made: list[Puppet] = []

    def act(node: Puppet, event: NodeEvent) -> None:
        unknown(node, event)
        if isinstance(event, Offered):
            play(node, event.sid)

    def run() -> None:
        with wired() as wires:
            made.extend(puppets(wires, url, count, models=("echo",), sealing=True, on_event=act))
            ready.set()
            while not over.is_set():
                wires.turn(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield made
    finally:
        over.set()
        thread.join(PATIENCE)


def decline(node: Puppet, sid: Sid) -> None:
    """What a node on its way out says to an offer."""
    node.end.reject(sid, Reason("node_draining"))
    node.flush()


def a_request(size: int = 1000) -> tuple[JobId, bytes]:
    """Bytes that look sealed: a header with a fresh id, and noise."""
    header = RequestHeader(bytes(8), Kem.X25519, os.urandom(16), time.time_ns() // 1_000_000)
    return header.job, header.pack() + bytes(48 + size)


def a_piece(size: int = 240, kind: RecordKind = RecordKind.DATA) -> bytes:
    """A record of the answer with so many bytes in it."""
    return Record(kind, bytes(size)).pack()


NONCE = Record(RecordKind.NONCE, bytes(NONCE_BYTES)).pack()


@dataclass(eq=False)
class Reader:
    """One connection of a client, kept alive. `on_chunk` is given each chunk of an answer, `on_end` its end."""

    wires: Wires
    url: str
    address: str = "127.0.0.1"
    """Who it seems to be: loopback has many addresses."""
    on_chunk: Callable[[Reader, bytes], None] = lambda _, chunk: None
    on_end: Callable[[Reader], None] = lambda _: None
    buffer: int | None = None
    reads: bool = True
    status: int = 0
    busy: bool = False
    closed: bool = False
    body: bytearray = field(default_factory=bytearray)
    """Of an answer that is no stream."""
    sock: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self._authority = urlsplit(self.url).netloc
        host, port = self._authority.split(":")
        self.sock = socket.socket()
        if self.buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        self.sock.bind((self.address, 0))
        self.sock.connect((host, int(port)))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._inbox = bytearray()
        self._left = -1
        """Bytes of a body with a length that are still to come; -1: the head comes first; -2: chunks."""
        if self.reads:
            self.wires.add(self)

    def submit(self, node: NodeId, sealed: bytes) -> None:
        """Ask."""
        self._ask(
            f"POST {routes.JOBS}?node={node} HTTP/1.1\r\nhost: {self._authority}\r\n"
            f"content-type: {request.CONTENT_TYPE}\r\ncontent-length: {len(sealed)}\r\n\r\n".encode()
            + sealed
        )

    def get(self, target: str) -> None:
        """Ask for something else."""
        self._ask(f"GET {target} HTTP/1.1\r\nhost: {self._authority}\r\n\r\n".encode())

    def _ask(self, message: bytes) -> None:
        assert not self.busy, "one question at a time"
        self.busy = True
        self.status = 0
        self._left = -1
        self.body.clear()
        self.sock.setblocking(True)
        self.sock.sendall(message)
        self.sock.setblocking(not self.reads)

    def readable(self) -> None:
        """Bytes of the relay."""
        try:
            data = self.sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.leave()
            return
        inbox = self._inbox
        inbox += data
        if self._left == -1:
            end = inbox.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(inbox[:end]).lower()
            del inbox[: end + 4]
            self.status = int(head[9:12])
            length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            self._left = int(length) if length else -2
        if self._left >= 0:
            self._sized()
        else:
            self._chunks()

    def _sized(self) -> None:
        self.body += self._inbox[: self._left]
        taken = min(self._left, len(self._inbox))
        del self._inbox[:taken]
        self._left -= taken
        if not self._left:
            self._over()

    def _chunks(self) -> None:
        inbox, start = bytes(self._inbox), 0
        while (line := inbox.find(b"\r\n", start)) >= 0:
            size = int(inbox[start:line], 16)
            end = line + 4 + size
            if end > len(inbox):
                break
            start = end
            if not size:
                del self._inbox[:start]
                self._over()
                return
            self.on_chunk(self, inbox[line + 2 : end - 2])
        del self._inbox[:start]

    def _over(self) -> None:
        self.busy = False
        self.on_end(self)

    def leave(self) -> None:
        """Close the connection."""
        with suppress(OSError):
            self.wires.drop(self)
        self.closed = True
        self.busy = False

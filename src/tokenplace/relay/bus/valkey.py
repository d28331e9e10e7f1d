"""The bus over Valkey or Redis: publish and subscribe, nothing stored. The only file that imports the library.

The library finds the server, proves who we are and sets up TLS. Then its two connections, one that speaks and one that
listens, are taken over: every letter would else wait for the answer to the one before and wake a task on its way in,
which is half of what a letter costs, and most of what makes it late.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn, cast

from libvalkey import ProtocolError, Reader, ReplyError
from valkey.asyncio import Connection, ConnectionPool
from valkey.exceptions import ValkeyError

from tokenplace.errors import TokenPlaceError
from tokenplace.relay.bus.base import BusBroken, Letter, Line, Listener, Topic

_PATIENCE = 2.0
"""Seconds for an answer of the store before it counts as lost."""

_FOREIGN = (ValkeyError, OSError, TimeoutError)


class BadStore(TokenPlaceError):
    """This is no address of a store; write valkey://HOST:6379 or redis://HOST:6379 (with s for TLS)."""

    code = "bad_store"


class ValkeyBus:
    """A way to the bus of one Valkey or Redis server, named by its URL.

    Topics are per database number, although the server's own publish and subscribe knows no databases, so that two
    deployments can share a server as they would expect.
    """

    def __init__(self, url: str, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        try:
            self._pool = ConnectionPool.from_url(url, socket_timeout=patience, socket_connect_timeout=patience)
        except (ValueError, TypeError):
            raise BadStore from None  # the library's own message may quote the URL, and that a password
        self._prefix = f"token.place/2/{self._pool.connection_kwargs.get('db') or 0}/"

    @asynccontextmanager
    async def join(self, topics: Sequence[Topic], listener: Listener) -> AsyncIterator[Line]:
        """See Bus."""
        line = _Line(self._prefix, self._patience, listener)
        speaking, listening = self._connection(), self._connection()
        try:
            try:
                async with asyncio.timeout(2 * self._patience):
                    await speaking.connect()  # type: ignore[no-untyped-call]
                    _take_over(speaking, line.speaking)
                    await listening.connect()  # type: ignore[no-untyped-call]
                    _take_over(listening, line.listening)
                    await line.subscribe(topics)
            except _FOREIGN as error:
                raise _broken(type(error).__name__) from error
            yield line
        finally:
            line.close()
            for connection in (speaking, listening):
                await connection.disconnect(nowait=True)

    def _connection(self) -> Connection:
        return cast("Connection", self._pool.make_connection())  # type: ignore[no-untyped-call]


def _take_over(connection: Connection, protocol: _Replies) -> None:
    """From now on `protocol` reads what the server says on a connection of the library's.

    The library knows no such thing, hence its protected name. Nothing is lost between: everything that it asked is
    answered, and the server says nothing more until it is asked.
    """
    writer = cast("asyncio.StreamWriter", connection._writer)
    transport = cast("asyncio.Transport", writer.transport)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)


class _Replies(asyncio.Protocol):
    """What the server says on one connection, value by value."""

    transport: asyncio.Transport

    def __init__(self, on_reply: Callable[[object], None], on_end: Callable[[str], None]) -> None:
        self._reader = Reader(protocolError=ProtocolError, replyError=ReplyError)
        self._on_reply = on_reply
        self._on_end = on_end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is ours."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Some bytes of the server."""
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                if isinstance(reply, ReplyError):
                    self._on_end("an error")
                    return
                self._on_reply(reply)
        except ProtocolError:
            self._on_end("no answer of a store")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._on_end("the connection ended" if exc is None else type(exc).__name__)


class _Line:
    """Two connections to the server. See Line."""

    def __init__(self, prefix: str, patience: float, listener: Listener) -> None:
        self.speaking = _Replies(self._answered, self._break)
        self.listening = _Replies(self._heard, self._break)
        self._prefix = prefix
        self._patience = patience
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._over.add_done_callback(asyncio.Future.exception)  # nobody needs to ask
        self._subscribed: asyncio.Future[None] = self._loop.create_future()
        self._to_confirm = 0
        self._unanswered: deque[Topic] = deque()
        self._answers = 0
        self._looking: asyncio.TimerHandle | None = None

    async def subscribe(self, topics: Sequence[Topic]) -> None:
        """Listen; from the server's confirmation on we count as a listener. Raises BusBroken."""
        self._to_confirm = len(topics)
        self.listening.transport.write(_command(b"SUBSCRIBE", *(self._name(topic) for topic in topics)))
        await asyncio.wait((self._subscribed, self._over), return_when=asyncio.FIRST_COMPLETED)
        if self._over.done():
            await self.ended()

    def publish(self, letters: Sequence[Letter]) -> None:
        """See Line. A server that does not answer within the patience is lost."""
        if self._over.done():
            return
        self._unanswered.extend(letter.to for letter in letters)
        self.speaking.transport.write(
            b"".join(_command(b"PUBLISH", self._name(letter.to), letter.data) for letter in letters)
        )
        if self._looking is None:
            self._looking = self._loop.call_later(self._patience, self._look, self._answers)

    async def ended(self) -> NoReturn:
        """See Line."""
        await asyncio.wait((self._over,))
        raise self._over.exception() or AssertionError("a line ends in an error")

    def close(self) -> None:
        """Say and hear nothing more."""
        self._break("it was left")

    # -- inside ----------------------------------------------------------------------------------------------------

    def _name(self, topic: Topic) -> bytes:
        return (self._prefix + topic).encode()

    def _answered(self, reply: object) -> None:
        """To a letter: how many heard it."""
        self._answers += 1
        topic = self._unanswered.popleft()
        if not reply:
            self._listener.unheard(topic)

    def _heard(self, reply: object) -> None:
        """`message`, the topic's name, a letter; or the confirmation of a topic."""
        match reply:
            case [b"message", _, bytes(data)]:
                self._listener.hear(data)
            case [b"subscribe", _, _]:
                self._to_confirm -= 1
                if not self._to_confirm and not self._subscribed.done():
                    self._subscribed.set_result(None)

    def _look(self, answers: int) -> None:
        """Whether the server has answered anything since; one timer serves many letters."""
        self._looking = None
        if not self._unanswered:
            return
        if self._answers == answers:
            self._break("no answer in time")
            return
        self._looking = self._loop.call_later(self._patience, self._look, self._answers)

    def _break(self, why: str) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if not self._over.done():
            self._over.set_exception(_broken(why))


def _command(*words: bytes) -> bytes:
    """As the server reads it (RESP, an array of bulk strings)."""
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


def _broken(why: str) -> BusBroken:
    return BusBroken(f"The store does not answer ({why}).")

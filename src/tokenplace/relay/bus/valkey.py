"""The bus over Valkey or Redis: publish and subscribe, nothing stored. The only file that imports the library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from valkey.asyncio import BlockingConnectionPool, Connection, Valkey
from valkey.asyncio.client import PubSub
from valkey.exceptions import ValkeyError

from tokenplace.errors import TokenPlaceError
from tokenplace.relay.bus.base import BusBroken, Letter, Topic

_PATIENCE = 2.0
"""Seconds for an answer of the store before it counts as lost."""

_CONNECTIONS = 4
_FOREIGN = (ValkeyError, OSError, TimeoutError)


class BadStore(TokenPlaceError):
    """This is no address of a store; write valkey://HOST:6379 or redis://HOST:6379 (with s for TLS)."""

    code = "bad_store"


class ValkeyBus:
    """A place on the bus of one Valkey or Redis server, named by its URL.

    Topics are per database number, although the server's own publish and subscribe knows no databases, so that two
    deployments can share a server as they would expect.
    """

    def __init__(self, url: str, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        try:
            pools = [
                BlockingConnectionPool.from_url(
                    url,
                    max_connections=_CONNECTIONS,
                    timeout=patience,
                    socket_timeout=silence,
                    socket_connect_timeout=patience,
                )
                for silence in (patience, None)
            ]
        except (ValueError, TypeError):
            raise BadStore from None  # the library's own message may quote the URL, and that a password
        self._publisher, self._listener = (Valkey(connection_pool=pool) for pool in pools)
        self._turn = asyncio.Lock()
        self._speaking: Connection | None = None
        """Held for as long as it stands: a pipeline, or the pool's check for each letter, costs twice as much."""
        self._prefix = f"token.place/2/{pools[0].connection_kwargs.get('db') or 0}/"

    async def publish(self, letters: Sequence[Letter]) -> Sequence[int]:
        """See Bus. One round trip for all of them."""
        commands = [(b"PUBLISH", self._prefix + letter.to, letter.data) for letter in letters]
        async with self._turn:
            try:
                if self._speaking is None:
                    self._speaking = await self._connected()
                speaking = self._speaking
                await speaking.send_packed_command(speaking.pack_commands(commands), check_health=False)
                return [int(await speaking.read_response()) for _ in commands]
            except BaseException as error:
                await self._hang_up()  # answers may be under way that are not the next caller's
                if isinstance(error, _FOREIGN):
                    raise _broken(error) from error
                raise

    async def _connected(self) -> Connection:
        connection: Connection = await self._publisher.connection_pool.get_connection("PUBLISH")  # type: ignore[no-untyped-call]
        return connection

    async def _hang_up(self) -> None:
        connection, self._speaking = self._speaking, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._publisher.connection_pool.release(connection)

    @asynccontextmanager
    async def listen(self, topics: Sequence[Topic]) -> AsyncIterator[AsyncIterator[bytes]]:
        """See Bus."""
        subscription: PubSub = self._listener.pubsub()
        try:
            try:
                async with asyncio.timeout(self._patience):
                    await subscription.subscribe(*[self._prefix + topic for topic in topics])
                    for _ in topics:  # the server confirms each; from then on we count as a listener
                        await subscription.get_message(timeout=None)
            except _FOREIGN as error:
                raise _broken(error) from error
            yield _letters(subscription)
        finally:
            await self._close(subscription)

    async def _close(self, subscription: PubSub) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await subscription.aclose()  # type: ignore[no-untyped-call]
        except _FOREIGN:
            return  # it was broken already

    async def aclose(self) -> None:
        """See Bus."""
        await self._hang_up()
        for client in (self._publisher, self._listener):
            await client.aclose()
            await client.connection_pool.disconnect()


async def _letters(subscription: PubSub) -> AsyncIterator[bytes]:
    try:
        async for message in subscription.listen():
            if message["type"] == "message":
                yield message["data"]
    except _FOREIGN as error:
        raise _broken(error) from error
    raise BusBroken("The subscription ended.")


def _broken(error: Exception) -> BusBroken:
    return BusBroken(f"The store does not answer ({type(error).__name__}).")

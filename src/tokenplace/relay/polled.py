"""The node link without a WebSocket, for nodes behind proxies that let none pass: the same messages in plain requests.

    POST   /relay/v2/link            opens a link: {"link": TOKEN}
    GET    /relay/v2/link/TOKEN      the relay's next message; 204 when there is none for a while; 410 when it is over
    POST   /relay/v2/link/TOKEN      one message of the node's
    DELETE /relay/v2/link/TOKEN      the node leaves

Each link is a conversation with the very door that WebSockets come to, so what holds there holds here. The token is
random and known to the two ends; whoever has it still has to prove the node's identity to the challenge. Requests of
one link come one after the other in each direction: a request that fails breaks the link, and the node opens another.

A link that was refused is kept for a while, so that the node hears why. So whoever dials too often, or holds as many
links as one address may, is told so before anything is kept. Messages that are being received have a memory of their
own: what clients bring cannot crowd out the answers to them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import structlog

from tokenplace.errors import QueueFull, Refused, TokenPlaceError
from tokenplace.relay.address import Client, client_address
from tokenplace.relay.admission import LINKS_PER_ADDRESS
from tokenplace.relay.asgi import (
    App,
    ClientGone,
    Message,
    Receive,
    Scope,
    Send,
    WrongMethod,
    respond,
    respond_error,
    respond_json,
)
from tokenplace.relay.body import OwnMemory, read_body
from tokenplace.relay.fairness import Shares
from tokenplace.relay.limits import Budget, Limiter
from tokenplace.wire import routes
from tokenplace.wire.frames import CONTENT_TYPE
from tokenplace.wire.limits import MAX_MESSAGE, MiB

_TYPE = CONTENT_TYPE.encode()
WAIT = 20.0
"""Seconds that a request for the next message may wait."""

SILENCE = 45.0
"""Seconds without a request after which a link is over: two waits and a little."""

_WAITING_MESSAGES = 4
"""Messages that wait in each direction; who brings more waits."""

_MOST = 10_000
_MEMORY = 16 * MiB
"""Bytes of messages that are being received, of all links together."""

_log = structlog.get_logger("tokenplace.relay")


class LinkOver(Refused):
    """This link is over, or never was; open another."""

    code = "link_over"
    status = HTTPStatus.GONE


class _Conversation:
    """One link: what each side has said and the other has not heard yet."""

    def __init__(self, token: str, client: Client, now: float) -> None:
        self.token = token
        self.client = client
        self.heard = now
        self.to_door: asyncio.Queue[Message] = asyncio.Queue(_WAITING_MESSAGES)
        self.to_node: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_MESSAGES)
        self.closed: tuple[int, str] | None = None
        self.over = asyncio.Event()
        self.polling: asyncio.Task[object] | None = None
        self.to_door.put_nowait({"type": "websocket.connect"})

    async def receive(self) -> Message:
        """What the door hears."""
        return await self.to_door.get()

    async def send(self, message: Message) -> None:
        """What the door says."""
        match message["type"]:
            case "websocket.send":
                await self.to_node.put(message["bytes"])
            case "websocket.close":
                self.closed = (message.get("code", 1000), message.get("reason") or "")
                self.over.set()

    def hang_up(self) -> None:
        """The node is gone: the door hears it next, whatever else waits."""
        with suppress(asyncio.QueueEmpty):
            while True:
                self.to_door.get_nowait()
        self.to_door.put_nowait({"type": "websocket.disconnect", "code": 1006})
        with suppress(asyncio.QueueEmpty):  # a door that waits for room goes on and hears it
            while True:
                self.to_node.get_nowait()
        self.over.set()


class PolledLinks:
    """The routes of polled links, in front of `door`, which serves them as WebSockets.

    How often one address dials is counted here, by `limiter`, and not by the door again; `places` is how many links an
    address may have, with those whose refusal it has not heard yet.
    """

    def __init__(
        self,
        door: App,
        clock: Callable[[], float],
        limiter: Limiter | None = None,
        *,
        places: int = LINKS_PER_ADDRESS,
        wait: float = WAIT,
    ) -> None:
        self._door = door
        self._clock = clock
        self._limiter = limiter or Limiter({})
        self._most = places
        self._wait = wait
        self._talks: dict[str, _Conversation] = {}
        self._places: Counter[str] = Counter()
        self._memory = OwnMemory(Shares(_MEMORY))
        self._group: asyncio.TaskGroup | None = None

    def __len__(self) -> int:
        return len(self._talks)

    async def run(self) -> None:
        """Serve links until cancelled; they end with it."""
        async with asyncio.TaskGroup() as self._group:
            while True:
                await asyncio.sleep(SILENCE / 10)
                now = self._clock()
                for talk in list(self._talks.values()):
                    if now - talk.heard > SILENCE and talk.polling is None:
                        talk.hang_up()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            await self._answer(scope, receive, send)
        except ClientGone:
            return
        except TokenPlaceError as error:
            await respond_error(send, error)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = scope["path"][len(routes.LINK) + 1 :]
        method = scope["method"]
        if not token:
            if method != "POST":  # or by a WebSocket, which did not get here
                raise WrongMethod("POST")
            await respond_json(send, HTTPStatus.OK, {"link": await self._open(scope)})
            return
        talk = self._talks.get(token)
        if talk is None:
            raise LinkOver
        talk.heard = self._clock()
        match method:
            case "GET":
                await self._poll(talk, receive, send)
            case "POST":
                await self._hear(talk, scope, receive)
                await respond(send, HTTPStatus.NO_CONTENT, b"", _TYPE)
            case "DELETE":
                talk.hang_up()
                await respond(send, HTTPStatus.NO_CONTENT, b"", _TYPE)
            case _:
                raise WrongMethod("GET, POST, DELETE")
        talk.heard = self._clock()

    async def _hear(self, talk: _Conversation, scope: Scope, receive: Receive) -> None:
        """One message of the node's. Raises LinkOver, and what `read_body` raises."""
        client = client_address(scope).key
        data = await read_body(scope, receive, "A link's message", MAX_MESSAGE, self._memory, client)
        try:
            await _until_over(talk, talk.to_door.put({"type": "websocket.receive", "bytes": data}))
        finally:
            self._memory.release(len(data), client)

    async def _open(self, scope: Scope) -> str:
        """A new link's token. Raises RateLimited and QueueFull."""
        client = client_address(scope)
        await self._limiter.hit(Budget.LINKS, client)
        if self._group is None or len(self._talks) >= _MOST:
            raise QueueFull("This relay has as many polled links as it can bear.", retry_after=30)
        if self._places[client.key] >= self._most and not client.is_here:
            raise QueueFull(f"One address may hold {self._most} polled links, and this one does.", retry_after=30)
        talk = _Conversation(secrets.token_hex(16), client, self._clock())
        self._talks[talk.token] = talk
        self._places[client.key] += 1
        state = {key: value for key, value in scope.get("state", {}).items() if key.startswith("token.place.client")}
        headers = [(key, value) for key, value in scope["headers"] if key == b"host"]
        theirs = {**scope, "type": "websocket", "path": routes.LINK, "headers": headers, "state": state}
        self._group.create_task(self._converse(talk, theirs))
        return talk.token

    async def _converse(self, talk: _Conversation, scope: Scope) -> None:
        try:
            await self._door(scope, talk.receive, talk.send)
        except Exception as error:  # noqa: BLE001 - one link's bug must not end the others
            _log.error("link.bug", error=type(error).__name__)
        finally:
            talk.over.set()
            if talk.closed is None:
                self._forget(talk)
            else:  # its reason is to be heard yet
                asyncio.get_running_loop().call_later(self._wait, self._forget, talk)

    def _forget(self, talk: _Conversation) -> None:
        if self._talks.pop(talk.token, None) is None:
            return
        self._places[talk.client.key] -= 1
        if not self._places[talk.client.key]:
            del self._places[talk.client.key]

    async def _poll(self, talk: _Conversation, receive: Receive, send: Send) -> None:
        """Wait for the relay's next message. A second poll takes the place of the first."""
        if talk.polling is not None:
            talk.polling.cancel()
        getting = asyncio.ensure_future(talk.to_node.get())
        leaving = asyncio.ensure_future(_gone(receive))
        over = asyncio.ensure_future(talk.over.wait())
        talk.polling = getting
        try:
            await asyncio.wait({getting, leaving, over}, timeout=self._wait, return_when=asyncio.FIRST_COMPLETED)
            if getting.done() and not getting.cancelled():
                await respond(send, HTTPStatus.OK, getting.result(), _TYPE)
            elif leaving.done():
                talk.hang_up()  # what was on its way to the node may be lost: the node begins anew
            elif talk.over.is_set():
                code, reason = talk.closed or (0, "")
                self._forget(talk)
                shape = {"error": {"message": reason or "This link is over.", "code": "link_over", "close": code}}
                await respond_json(send, HTTPStatus.GONE, shape)
            else:
                await respond(send, HTTPStatus.NO_CONTENT, b"", _TYPE)
        finally:
            for waiting in (getting, leaving, over):
                waiting.cancel()
            if talk.polling is getting:
                talk.polling = None


async def _until_over(talk: _Conversation, putting: Coroutine[Any, Any, None]) -> None:
    """Wait for room, unless the link ends first. Raises LinkOver."""
    task = asyncio.ensure_future(putting)
    over = asyncio.ensure_future(talk.over.wait())
    try:
        await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise LinkOver
    finally:
        task.cancel()
        over.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

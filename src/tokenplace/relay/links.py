"""Where nodes dial in: the challenge, the proof, and the pump between a WebSocket and the link's state machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import structlog

from tokenplace.errors import LinkError, Refused, TokenPlaceError
from tokenplace.link.ends import CHALLENGE_BYTES, RelayEnd
from tokenplace.link.events import Introduced, RelayEvent, Reported
from tokenplace.relay.address import Client, client_address
from tokenplace.relay.admission import Admission, Guest, NotAdmitted
from tokenplace.relay.asgi import ABORT, DIRECT, Receive, Scope, Send, header
from tokenplace.relay.broker import Broker
from tokenplace.relay.limits import Budget, Limiter
from tokenplace.relay.roster import Node
from tokenplace.wire.messages import Closed

_GOODBYE = 5.0
"""Seconds for the closing handshake."""

_log = structlog.get_logger("tokenplace.relay")


class NodesDoor:
    """The WebSocket route that nodes use."""

    def __init__(
        self, broker: Broker, clock: Callable[[], float], admission: Admission, limiter: Limiter | None = None
    ) -> None:
        self.broker = broker
        self.clock = clock
        self.admission = admission
        self._limiter = limiter or Limiter({})
        self._inside: dict[Guest, _Link] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one link until it ends."""
        await self._serve(scope, receive, send, self._limiter)

    async def counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same for one whose dialling was counted before it came here."""
        await self._serve(scope, receive, send, None)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, limiter: Limiter | None) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        client = client_address(scope)
        try:
            if limiter is not None:
                await limiter.hit(Budget.LINKS, client)
            with self.admission.link(client):
                await send({"type": "websocket.accept"})
                link = _Link(self, scope, receive, send, client)
                scope["headers"] = []  # the scope lives as long as the link: a quarter of what a link took was these
                await link.run()
        except (Refused, NotAdmitted) as error:
            await _turn_away(send, error)

    def look_again(self) -> None:
        """Close the links of those who may not stay, because a file was changed or an invitation has expired."""
        self.admission.refresh()
        for guest, reason in self.admission.unwelcome(list(self._inside)):
            _log.warning("node.sent_away", node=guest.node, reason=reason)
            self._inside[guest].send_away(reason)

    def came(self, guest: Guest, link: _Link) -> None:
        """Somebody was let in."""
        self._inside[guest] = link

    def went(self, guest: Guest, link: _Link) -> None:
        """… and is gone; unless the same node has come back meanwhile."""
        if self._inside.get(guest) is link:
            del self._inside[guest]


async def _turn_away(send: Send, error: TokenPlaceError) -> None:
    """Refuse a link at its door. It is opened and closed, because a node tells its owner the reason of a closing."""
    _log.warning("node.refused", code=error.code, reason=error.message)
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": Closed.NOT_ADMITTED, "reason": _fitting(error.message)})


class _Link:
    """One node's WebSocket."""

    def __init__(self, door: NodesDoor, scope: Scope, receive: Receive, send: Send, client: Client) -> None:
        self._door = door
        self._broker = door.broker
        self._clock = door.clock
        self._client = client
        self._guest: Guest | None = None
        self._state: dict[str, Any] = scope.get("state", {})
        self._receive = receive
        self._send = send
        self._host = header(scope, b"host") or ""
        self._waiter: asyncio.Future[None] | None = None
        self._end = RelayEnd(self._stir)
        self._nonce = os.urandom(CHALLENGE_BYTES)
        self._node: Node | None = None
        self._closing: tuple[int, str] | None = None

    async def run(self) -> None:
        """Until the link ends, whoever ends it."""
        self._end.last_heard = self._clock()
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read())
                await self._write()
                reader.cancel()
        except* OSError:
            pass  # the socket broke while we wrote; the node comes back when it can
        finally:
            if self._guest is not None:
                self._door.went(self._guest, self)
            if self._node is not None:
                self._broker.left(self._node, self._end, self._clock())
                _log.info("node.left", node=self._node.id, reason=(self._closing or (0, "gone"))[1])

    def close(self, reason: str) -> None:
        """End this link from our side."""
        codes = {"superseded": Closed.SUPERSEDED, "silent": Closed.SILENT}
        self._shut(codes.get(reason, Closed.VIOLATION), reason)

    def send_away(self, reason: str) -> None:
        """This node may not serve here any longer."""
        self._shut(Closed.NOT_ADMITTED, reason)

    def _shut(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
            abort = self._state.get(ABORT)
            if code and abort is not None:  # a node that does not read hears no goodbye
                asyncio.get_running_loop().call_later(_GOODBYE, abort)
        self._stir()

    def _stir(self) -> None:
        """Let `_write` look again. A bare future: an Event takes a kilobyte of every link that waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _write(self) -> None:
        while True:
            while message := self._end.take():
                await self._send({"type": "websocket.send", "bytes": message})
            if self._closing is not None:
                code, reason = self._closing
                if code:
                    await self._send({"type": "websocket.close", "code": code, "reason": _fitting(reason)})
                return
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def _read(self) -> None:
        """Until the node disconnects. Where the server can, it hands messages to `_take` without us."""
        direct = self._state.get(DIRECT)
        if direct is not None:
            direct(self._take)
        self._end.challenge(self._nonce)
        deadline = asyncio.get_running_loop().call_later(self._broker.timing.hello, self._too_late)
        try:
            while (message := await self._receive())["type"] != "websocket.disconnect":
                self._take(message.get("bytes"))
        finally:
            deadline.cancel()
        self._shut(0, "disconnected")

    def _too_late(self) -> None:
        if self._node is None:
            self._refuse(LinkError("The node did not introduce itself."), Closed.VIOLATION)

    def _refuse(self, error: TokenPlaceError, code: int) -> None:
        _log.warning("node.refused", code=error.code, reason=error.message)
        self._shut(code, error.told if isinstance(error, NotAdmitted) else error.message)

    def _take(self, data: bytes | None) -> None:
        """One message of the node."""
        if self._closing is not None:
            return
        try:
            if data is None:
                raise LinkError("The link speaks binary messages.")
            now = self._clock()
            for event in self._end.receive(data, now):
                if self._node is None:
                    self._greet(event, now)
                    continue
                if type(event) is Reported and event.status.card is not None:
                    self._door.admission.check_card(event.status.card)
                self._broker.handle(self._node, self._end, event, now)
        except LinkError as error:
            if self._node is not None:
                self._broker.misbehaved(self._node, self._end, self._clock())
            self._refuse(error, Closed.VIOLATION)
        except NotAdmitted as error:
            self._refuse(error, Closed.NOT_ADMITTED)

    def _greet(self, event: RelayEvent, now: float) -> None:
        if isinstance(event, Introduced):
            self._guest = self._door.admission.admit(event.hello, self._nonce, self._host, self._client)
            self._node = self._broker.joined(event.hello, self._end, self.close, now)
            self._door.came(self._guest, self)
            _log.info("node.joined", node=self._node.id, slots=self._node.slots)


def _fitting(reason: str) -> str:
    """A close frame has room for 123 bytes of reason (RFC 6455 section 5.5.1)."""
    return reason.encode()[:120].decode(errors="ignore")

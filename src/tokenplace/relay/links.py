"""Where nodes dial in: the challenge, the proof, and the pump between a WebSocket and the link's state machine."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Callable, Sequence

import structlog

from tokenplace.errors import LinkError, TokenPlaceError
from tokenplace.link.ends import CHALLENGE_BYTES, RelayEnd
from tokenplace.link.events import Introduced, RelayEvent, Reported
from tokenplace.relay.asgi import ABORT, DIRECT, Receive, Scope, Send, header
from tokenplace.relay.broker import Broker
from tokenplace.relay.roster import Node
from tokenplace.wire.card import Card, hello_signing_input
from tokenplace.wire.messages import Hello

Verifier = Callable[[bytes, bytes, bytes], bool]
"""(Ed25519 public key, signature, message) → whether it holds. Handed in by `cli`."""

CLOSE_VIOLATION = 4000
CLOSE_SUPERSEDED = 4001
CLOSE_NOT_ADMITTED = 4003
CLOSE_SILENT = 4008

_GOODBYE = 5.0
"""Seconds for the closing handshake."""

_log = structlog.get_logger("tokenplace.relay")


class NotAdmitted(TokenPlaceError):
    """This node may not serve here."""

    code = "not_admitted"


class NodesDoor:
    """The WebSocket route that nodes use."""

    def __init__(
        self,
        broker: Broker,
        clock: Callable[[], float],
        verify: Verifier,
        *,
        names: Sequence[str] = (),
        tokens: Sequence[str] = (),
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._verify = verify
        self._names = frozenset(name.lower() for name in names)
        self._tokens = [token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one link until it ends."""
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept"})
        link = _Link(self, scope, receive, send)
        await link.run()

    def admit(self, hello: Hello, nonce: bytes, host: str) -> None:
        """Whether this node is who it says and may serve. Raises NotAdmitted with what its owner should do.

        The node signed the name it dialled. Where this relay knows its own names, one of them it must be, so that
        nobody in between can pass our challenge on; where it does not, the request's Host has to do.
        """
        if hello.authority.lower() not in (self._names or {host.lower()}):
            raise NotAdmitted(
                "Pass the Host header through the proxy or start the relay with --name: "
                f"the node dialled {hello.authority[:200]!r}, the relay was called {host[:200]!r}."
            )
        identity = hello.card.body.identity
        if not self._verify(identity, hello.signature, hello_signing_input(nonce, hello.authority)):
            raise NotAdmitted("The answer to the challenge is not signed by the node's identity key.")
        self.check_card(hello.card)
        if self._tokens and not self._invited(hello.token):
            raise NotAdmitted(
                "The invitation is not one of this relay's; ask its operator for another."
                if hello.token
                else "This relay takes nodes with an invitation only; set TOKEN_PLACE_RELAY_SERVER_TOKEN on the node."
            )

    def check_card(self, card: Card) -> None:
        """Whether a card is signed by its identity. Raises NotAdmitted."""
        if not self._verify(card.body.identity, card.signature, card.signing_input()):
            raise NotAdmitted("The card is not signed by the node's identity key.")

    def _invited(self, token: str | None) -> bool:
        given = (token or "").encode("utf-8", "replace")
        return sum(hmac.compare_digest(given, known) for known in self._tokens) > 0  # no early end


class _Link:
    """One node's WebSocket."""

    def __init__(self, door: NodesDoor, scope: Scope, receive: Receive, send: Send) -> None:
        self._door = door
        self._broker = door._broker
        self._clock = door._clock
        self._scope = scope
        self._receive = receive
        self._send = send
        self._host = header(scope, b"host") or ""
        self._output = asyncio.Event()
        self._end = RelayEnd(self._output.set)
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
            if self._node is not None:
                self._broker.left(self._node, self._end, self._clock())
                _log.info("node.left", node=self._node.id, reason=(self._closing or (0, "gone"))[1])

    def close(self, reason: str) -> None:
        """End this link from our side."""
        codes = {"superseded": CLOSE_SUPERSEDED, "silent": CLOSE_SILENT}
        self._shut(codes.get(reason, CLOSE_VIOLATION), reason)

    def _shut(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
            abort = self._scope.get("state", {}).get(ABORT)
            if code and abort is not None:  # a node that does not read hears no goodbye
                asyncio.get_running_loop().call_later(_GOODBYE, abort)
        self._output.set()

    async def _write(self) -> None:
        while True:
            await self._output.wait()
            self._output.clear()
            while message := self._end.take():
                await self._send({"type": "websocket.send", "bytes": message})
            if self._closing is not None:
                code, reason = self._closing
                if code:
                    await self._send({"type": "websocket.close", "code": code, "reason": _fitting(reason)})
                return

    async def _read(self) -> None:
        """Until the node disconnects. Where the server can, it hands messages to `_take` without us."""
        direct = self._scope.get("state", {}).get(DIRECT)
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
            self._refuse(LinkError("The node did not introduce itself."), CLOSE_VIOLATION)

    def _refuse(self, error: TokenPlaceError, code: int) -> None:
        _log.warning("node.refused", code=error.code, reason=error.message)
        self._shut(code, error.message)

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
                    self._door.check_card(event.status.card)
                self._broker.handle(self._node, self._end, event, now)
        except LinkError as error:
            self._refuse(error, CLOSE_VIOLATION)
        except NotAdmitted as error:
            self._refuse(error, CLOSE_NOT_ADMITTED)

    def _greet(self, event: RelayEvent, now: float) -> None:
        if isinstance(event, Introduced):
            self._door.admit(event.hello, self._nonce, self._host)
            self._node = self._broker.joined(event.hello, self._end, self.close, now)
            _log.info("node.joined", node=self._node.id, slots=self._node.slots)


def _fitting(reason: str) -> str:
    """A close frame has room for 123 bytes of reason (RFC 6455 section 5.5.1)."""
    return reason.encode()[:120].decode(errors="ignore")

"""Where classic requests come in: in the open from a relay, or inside the sealed exchange from a gateway.

    ClassicDoor.answer         the node's API with encrypted calls understood: what a worker asks for sealed requests
    ClassicDoor.answer_open    a request in the open

A request that comes inside the exchange has its protection on the way from the gateway; in the open there is only
the client's own envelope, which `sealing.classic` says the weaknesses of. The door asks its guard before it opens.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import structlog

from tokenplace.errors import ApiError, Refused, Replayed, WireError
from tokenplace.node.api import Answer, NodeApi
from tokenplace.node.api.answers import JSON, once
from tokenplace.node.api.answers import refused as refused_answer
from tokenplace.node.classic.answering import Reply, refused, reply_to
from tokenplace.node.classic.keys import ClassicKeys
from tokenplace.node.classic.opening import Opened, Visible, opened, read_call, read_packed
from tokenplace.node.engines.base import Engine
from tokenplace.openai import jsontext
from tokenplace.openai.classic import ENCRYPTED, ENCRYPTION_ERROR, PATHS, cannot_open
from tokenplace.openai.events import CONTENT_TYPE as EVENT_STREAM
from tokenplace.openai.events import data_event, done_event
from tokenplace.openai.usage import Tally, Usage
from tokenplace.sealing.replay import ClassicGuard
from tokenplace.wire.classic import CARD_FIELD, Door
from tokenplace.wire.ids import NodeId

ROTATE = "/v1/public-key/rotate"
"""Where an operator's order goes, inside the exchange: `{"time_ms", "order"}`."""

REFUSED_AFTER = 0.05
"""Seconds after which it is told that a request does not open, whatever took less: why it did not is not to be seen
in the time. Opening takes some 2 ms, and 20 on a small machine."""

_MARK = f'"{ENCRYPTED}"'.encode()
_log = structlog.get_logger("tokenplace.node")


class ClassicDoor:
    """Opens classic requests with `keys`, has `api` answer them and seals what it says.

    `rotated` hears that the operator ordered fresh keys, and makes those of the exchange. `clock` is seconds.
    """

    def __init__(
        self,
        api: NodeApi,
        engine: Engine,
        keys: ClassicKeys,
        *,
        guard: ClassicGuard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys
        self.counts: Counter[str] = Counter()
        """Requests `opened` and `refused`, and how many of the opened came with the old padding (`pkcs1v15`)."""
        self.node = NodeId("")
        """Whose door it is; orders are given to a node by its name."""
        self.rotated: Callable[[], None] = lambda: None
        self._api = api
        self._engine = engine
        self._guard = guard or ClassicGuard()
        self._clock = clock

    def card_fields(self) -> dict[str, Any]:
        """What the node's card says of it; nothing until there is a key."""
        card = self.keys.card()
        return {} if card is None else {CARD_FIELD: card.fields()}

    # -- inside the exchange ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def answer(self, path: str, body: bytes) -> AsyncIterator[Answer]:
        """As `NodeApi.answer`, with encrypted calls and the operator's orders understood."""
        if path == ROTATE:
            yield await self._ordered(body)
        elif path in PATHS and _MARK in body and (visible := await self._encrypted(path, body)) is not None:
            if isinstance(visible, ApiError):
                yield refused_answer(visible)
                return
            async with self._reply(visible) as reply:
                yield _Told(reply)
        else:
            async with self._api.answer(path, body) as answer:
                yield answer

    async def _encrypted(self, path: str, body: bytes) -> Visible | ApiError | None:
        """What can be seen of an encrypted call. None for a plain one, in which the word only occurs."""
        try:
            return await asyncio.to_thread(read_call, path, body)
        except ApiError as error:
            return None if error.param == ENCRYPTED and error.code == "missing_required_parameter" else error

    async def _ordered(self, body: bytes) -> Answer:
        operator = self.keys.operator
        try:
            if operator is None:
                raise Refused("This node was started without an operator's token.", code="operator_auth_not_configured")
            order = jsontext.read_object(body)
            time_ms, proof = order.get("time_ms"), order.get("order")
            if not isinstance(time_ms, int) or not isinstance(proof, str):
                raise Refused("This is not an order.", code="operator_token_invalid")
            now_ms = time.time_ns() // 1_000_000
            await asyncio.to_thread(operator.obey, proof, self.node, time_ms, now_ms)
        except (Refused, ApiError) as error:
            _log.warning("classic.order_refused", code=error.code)
            kind = "authentication_error"
            return refused_answer(ApiError(error.message, status=HTTPStatus.FORBIDDEN, type=kind, code=error.code))
        await self.keys.rotate()
        self.rotated()
        _log.warning("classic.rotated", reason="the operator ordered fresh keys")
        card = self.keys.card()
        shown = {"public_key": card.key, "key_id": card.key_id} if card is not None else {}
        return Answer(HTTPStatus.OK, JSON, once(jsontext.write(shown)), Tally())

    # -- in the open -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def answer_open(self, data: bytes) -> AsyncIterator[Reply]:
        """Answer a packed ClassicRequest. Nothing is raised for one that is refused."""
        try:
            visible = await asyncio.to_thread(read_packed, data)
        except ApiError as error:
            yield refused(error)
            return
        except WireError as error:
            yield refused(ApiError(error.message, code=error.code))
            return
        async with self._reply(visible) as reply:
            yield reply

    # -- both ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _reply(self, visible: Visible) -> AsyncIterator[Reply]:
        began = self._clock()
        async with AsyncExitStack() as stack:
            try:
                found = await self._open(visible)
            except ApiError as error:
                self.counts["refused"] += 1
                if error.code == ENCRYPTION_ERROR:
                    await asyncio.sleep(max(0.0, began + REFUSED_AFTER - self._clock()))
                yield refused(error)
                return
            old = found is not None and found.pkcs1v15
            self._note(visible, old=old)
            body = await asyncio.to_thread(self._body, visible, found)
            answer = await stack.enter_async_context(self._api.answer(visible.path, body))
            reply = reply_to(visible, found, replace(visible.to, pkcs1v15=old), answer)
            if answer.refusal is None:
                stack.push_async_callback(_let_go, reply)
            yield reply

    async def _open(self, visible: Visible) -> Opened | None:
        """The words that are sealed in a request, if any are. Raises ApiError."""
        if visible.envelope is None:
            return None
        keys = self.keys.for_request(visible.key_id)
        cipherkey = visible.envelope.cipherkey or b""
        try:
            self._guard.admit(cipherkey)
        except Replayed:
            raise cannot_open() from None
        found = await asyncio.to_thread(opened, visible, keys)
        self._guard.opened(cipherkey)
        return found

    def _note(self, visible: Visible, *, old: bool) -> None:
        self.counts["opened"] += 1
        if old:
            self.counts["pkcs1v15"] += 1
            _log.warning("classic.old_padding", door=visible.door.value)

    def _body(self, visible: Visible, found: Opened | None) -> bytes:
        """The request that the API is asked."""
        fields: dict[str, Any] = {**visible.fields}
        if found is not None:
            fields["messages"] = found.messages
        if visible.door is Door.RELAY:
            fields["model"] = self._first_model()
        if visible.stream:
            fields["stream"] = True
        return json.dumps(fields).encode()

    def _first_model(self) -> str:
        models = self._engine.models
        chats = (model.id for model in models if "chat" in model.capabilities)
        return next(chats, models[0].id if models else "none")


async def _let_go(reply: Reply) -> None:
    close = getattr(reply.messages, "aclose", None)
    if close is not None:
        await close()


class _Told(Answer):
    """A reply as the API's answer: JSON, or server-sent events."""

    def __init__(self, reply: Reply) -> None:
        kind = EVENT_STREAM if reply.stream else JSON
        super().__init__(reply.status, kind, _bytes(reply), Tally(), reply.error)
        self._reply = reply

    @property
    def usage(self) -> Usage:
        """What the answer has cost so far."""
        return self._reply.usage()


async def _bytes(reply: Reply) -> AsyncIterator[bytes]:
    if reply.error is not None:
        yield jsontext.write(reply.error.as_json())
        return
    async with aclosing(reply.messages) as messages:  # type: ignore[type-var]
        async for message in messages:
            yield data_event(message) if reply.stream else jsontext.write(message)
    if reply.stream:
        yield done_event()

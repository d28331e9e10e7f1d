"""What the node's API says, sealed for a classic client: in one envelope, or a stream of them.

A reply is a status and then messages, each of which is what the client gets; or an error and nothing else. Its lengths
are hidden by spaces behind the JSON in each envelope, since CBC shows them to sixteen bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from tokenplace.errors import ApiError, EngineCrashed, EngineError, TokenPlaceError, TooLarge
from tokenplace.node.api import Answer
from tokenplace.node.api.answers import let_go
from tokenplace.node.classic.opening import Opened, Recipient, Visible
from tokenplace.openai.classic import discreet
from tokenplace.openai.events import EventParser
from tokenplace.openai.usage import Usage
from tokenplace.sealing.padding import request_size
from tokenplace.wire.classic import MAX_LINE, Door

PIECE_STEP = 256
"""Pieces of a stream are multiples of this, in bytes, before they are sealed."""

MAX_WHOLE = MAX_LINE // 2
"""Bytes of a whole answer: base64 and the JSON around it make a line of them."""

Message = dict[str, Any]


@dataclass(slots=True)
class Reply:
    """The answer to one classic request. `messages` raises EngineError when the engine fails under them, ApiError or
    TooLarge where the request is why there is no more."""

    status: int
    messages: AsyncIterator[Message]
    usage: Callable[[], Usage] = dict
    error: ApiError | None = None
    stream: bool = False


def refused(error: ApiError) -> Reply:
    """A request that is not answered."""
    return Reply(error.status, _nothing(), error=error)


def reply_to(visible: Visible, opened: Opened | None, to: Recipient, answer: Answer) -> Reply:
    """What a client gets of the API's answer."""
    if answer.refusal is not None:
        return Reply(answer.status, _nothing(), lambda: answer.usage, discreet(answer.refusal))
    if visible.stream:
        pieces = _Pieces(visible.door, to)
        return Reply(answer.status, pieces.of(answer), lambda: answer.usage, stream=True)
    history = opened.messages if visible.door is Door.RELAY and opened is not None else None
    return Reply(answer.status, _whole(to, answer, history), lambda: answer.usage)


async def _nothing() -> AsyncIterator[Message]:
    none: tuple[Message, ...] = ()
    for message in none:
        yield message


async def _whole(to: Recipient, answer: Answer, history: list[Any] | None) -> AsyncIterator[Message]:
    body = bytearray()
    async for chunk in _unbroken(answer):
        body += chunk
        if len(body) > MAX_WHOLE:
            raise TooLarge(f"An answer in one envelope has at most {MAX_WHOLE} bytes; ask for a stream.")
    yield await asyncio.to_thread(_sealed, to, bytes(body), history)


def _sealed(to: Recipient, body: bytes, history: list[Any] | None) -> Message:
    if history is None:
        envelope = to.sealer().seal(body.ljust(request_size(len(body))))
        return {"encrypted": True, "data": to.fields(envelope)}
    said = json.loads(body)["choices"][0]["message"]
    calls = {"tool_calls": said["tool_calls"]} if said.get("tool_calls") else {}
    told = json.dumps([*history, {"role": "assistant", "content": said.get("content"), **calls}]).encode()
    return {**to.sealer().seal(told.ljust(request_size(len(told)))).relay_fields()}


@dataclass(slots=True)
class _Pieces:
    """A stream: one AES key, one envelope for each of OpenAI's chunks."""

    door: Door
    to: Recipient
    session: str = field(default_factory=lambda: f"stream-{uuid4()}")

    async def of(self, answer: Answer) -> AsyncIterator[Message]:
        sealer = await asyncio.to_thread(self.to.sealer)
        events = EventParser()
        async for chunk in _unbroken(answer):
            for event in events.feed(chunk):
                if event.done:
                    return
                step = -(-len(event.data) // PIECE_STEP) * PIECE_STEP
                yield self._piece(self.to.fields(sealer.seal(event.data.ljust(step))))
        raise EngineCrashed

    def _piece(self, fields: Message) -> Message:
        if self.door is Door.RELAY:
            return fields
        data = {**fields, "stream_session_id": self.session}
        return {"event": "delta", "encrypted": True, "stream_session_id": self.session, "data": data}


async def _unbroken(answer: Answer) -> AsyncIterator[bytes]:
    """The API's bytes. What an engine says when it fails may quote the words, and is not passed on."""
    chunks = answer.body()
    try:
        async for chunk in chunks:
            yield chunk
    except EngineCrashed:
        raise EngineCrashed from None
    except EngineError:
        raise EngineError("The model runtime on this node failed under the answer. Try again.") from None
    except ApiError as error:
        raise discreet(error) from None
    finally:
        await let_go(chunks)


def as_error(error: TokenPlaceError) -> ApiError:
    """What is told of an answer that broke off."""
    if isinstance(error, ApiError):
        return error
    return ApiError(error.message, status=HTTPStatus.BAD_GATEWAY, type="server_error", code=error.code)

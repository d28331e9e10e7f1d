"""One OpenAI call of a plain program, through the client, back to the program as it comes.

The sign of life: a waiting event stream gets a comment within five seconds and every ten; a waiting JSON answer gets
white space once its status is sure. After a first byte was sent nothing is turned into a good ending any more: an
event stream tells the error and ends without [DONE], a JSON answer's connection breaks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Response
from starlette.types import Receive, Scope, Send

from tokenplace.client.answer import Answer, News, Phase
from tokenplace.client.client import Client, error_of
from tokenplace.errors import ApiError, TokenPlaceError, whole_seconds
from tokenplace.openai import jsontext
from tokenplace.openai.calls import Usage
from tokenplace.openai.events import CONTENT_TYPE as EVENT_STREAM
from tokenplace.openai.events import data_event, error_event
from tokenplace.relay.asgi import ABORT
from tokenplace.wire.ids import NodeId

FIRST_SIGN, NEXT_SIGN = 4.0, 9.0
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Question:
    """What a program asked: OpenAI's path, the JSON body, the model to choose a node by, and whether it streams."""

    path: str
    body: bytes
    model: str | None
    stream: bool
    node: NodeId | None = None
    """Whom to ask, where only one node can answer."""
    classic: bool = False
    """Whether its events have the shape of the original's encrypted streams."""


class Forwarded(Response):
    """The answer to a question, streamed without a framework in between."""

    def __init__(
        self,
        client: Client,
        question: Question,
        headers: dict[str, str],
        explain: Callable[[TokenPlaceError], ApiError],
        ended: Callable[[str, Usage | None], None],
    ) -> None:
        super().__init__()
        self._client = client
        self._question = question
        self._extra: Headers = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        self._explain = explain
        self._ended = ended
        self._started = False
        self._told = time.monotonic()
        self._comment = b": one moment\n\n"
        self._answer: Answer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. The program's leaving cancels the answer at the node."""
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(self._tell(scope, send))
            others = [group.create_task(gone(receive, answering)), group.create_task(self._live(send))]
            answering.add_done_callback(lambda _: [other.cancel() for other in others])

    async def _tell(self, scope: Scope, send: Send) -> None:
        outcome = "left"
        try:
            await self._forward(send)
            outcome = "done"
        except TokenPlaceError as error:
            outcome = "failed"
            await self._fail(scope, send, self._explain(error))
        finally:
            self._ended(outcome, self._answer.usage if self._answer is not None else None)

    async def _forward(self, send: Send) -> None:
        question = self._question
        asked = self._client.ask(
            question.path, question.body, model=question.model, node=question.node, on_news=self._hear
        )
        async with asked as answer:
            self._answer = answer
            head = answer.head
            if head.content_type.startswith("text/event-stream"):
                await self._start(send, head.status, head.content_type)
                async for chunk in answer.chunks():
                    await self._send(send, chunk)
                await self._send(send, b"", more=False)
                return
            body = await answer.read()
            if self._started and (question.stream or head.status != HTTPStatus.OK):
                raise error_of(head.status, body)
            if not self._started:
                await self._start(send, head.status, head.content_type, length=len(body))
            await self._send(send, body, more=False)

    async def _fail(self, scope: Scope, send: Send, error: ApiError) -> None:
        content: dict[str, object] = {**error.as_json()}
        if not self._started:
            body = jsontext.write(content)
            if error.retry_after is not None:
                self._extra.append((b"retry-after", whole_seconds(error.retry_after).encode()))
            await self._start(send, error.status, "application/json", length=len(body))
            await self._send(send, body, more=False)
        elif self._question.stream:
            if self._question.path.endswith("/responses"):  # whose events are flat; SDKs look for either
                content = {**error.as_json()["error"], "type": "error", **content}
            await self._send(send, self._told_event(error, content))
            await self._send(send, b"", more=False)
        else:
            abort = scope.get("state", {}).get(ABORT)
            if abort is None:
                raise error
            abort()

    def _told_event(self, error: ApiError, content: dict[str, object]) -> bytes:
        if self._question.classic:
            return data_event({"event": "error", "reason": error.code, "message": error.message})
        return error_event(content)

    async def _live(self, send: Send) -> None:
        """Signs of life while nothing else is sent."""
        pause = FIRST_SIGN
        while True:
            await asyncio.sleep(max(0.1, self._told + pause - time.monotonic()))
            if time.monotonic() - self._told < pause:
                continue
            if self._question.stream:
                await self._start(send, HTTPStatus.OK, EVENT_STREAM)
                await self._send(send, self._comment)
            elif self._answer is not None and self._answer.head.status == HTTPStatus.OK:
                await self._start(send, HTTPStatus.OK, self._answer.head.content_type)
                await self._send(send, b" ")
            pause = NEXT_SIGN
            self._told = time.monotonic()

    def _hear(self, news: News) -> None:
        text = {
            Phase.QUEUED: f"waiting, place {news.position} in the queue" if news.position else "waiting",
            Phase.RUNNING: "the node is working",
            Phase.RETURNING: "coming back to the answer",
            Phase.RETRYING: "asking another node",
        }[news.phase]
        self._comment = f": {text}\n\n".encode()

    async def _start(self, send: Send, status: int, content_type: str, *, length: int | None = None) -> None:
        if self._started:
            return
        self._started = True
        headers: Headers = [
            (b"content-type", content_type.encode("latin-1")),
            (b"cache-control", b"no-cache, no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
            *self._extra,
        ]
        if self._answer is not None:
            headers.append((b"x-token-place-node", self._answer.node.encode()))
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await send({"type": "http.response.start", "status": int(status), "headers": headers})

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        self._told = time.monotonic()
        await send({"type": "http.response.body", "body": data, "more_body": more})


async def gone(receive: Receive, answering: asyncio.Task[None]) -> None:
    """Cancel the answering when the client's connection ends."""
    while (await receive())["type"] != "http.disconnect":
        pass
    answering.cancel()

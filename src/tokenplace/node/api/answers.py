"""An answer on its way to the worker, and how one that is refused looks."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tokenplace.errors import ApiError
from tokenplace.node.engines.base import EngineAnswer
from tokenplace.openai import jsontext
from tokenplace.openai.usage import Tally, Usage

JSON = "application/json"

MAX_ENGINE_ERROR = 64 * 1024
"""Bytes of an engine's error answer that are read."""


class Answer:
    """One answer. `refusal` is what was wrong with the request, None where nothing was."""

    def __init__(
        self,
        status: int,
        content_type: str,
        body: AsyncIterator[bytes],
        tally: Tally,
        refusal: ApiError | None = None,
    ) -> None:
        self.status = status
        self.content_type = content_type
        self.refusal = refusal
        self._body = body
        self._tally = tally

    def body(self) -> AsyncIterator[bytes]:
        """The bytes, as they come; to be read once. Raises EngineError when the engine fails under them."""
        return self._body

    @property
    def usage(self) -> Usage:
        """What it has cost so far, in OpenAI's shape; `prompt_tokens` is left out while nobody knows it."""
        return self._tally.best


def refused(refusal: ApiError) -> Answer:
    """The answer to a request that is not answered."""
    return Answer(refusal.status, JSON, once(jsontext.write(refusal.as_json())), Tally(), refusal)


async def once(body: bytes) -> AsyncIterator[bytes]:
    """A body that is there already."""
    yield body


async def beginning(answer: EngineAnswer, most: int) -> bytes:
    """So much of an engine's body as is worth reading."""
    body = b""
    chunks = answer.chunks()
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) >= most:
                break
    finally:
        await let_go(chunks)
    return body[:most]


async def let_go(chunks: AsyncIterator[bytes]) -> None:
    """Close an iterator that can be closed, now rather than when it is collected."""
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()


class Said:
    """An answer that the node gives itself, as an engine would give it."""

    status = 200
    content_type = "text/event-stream"

    def __init__(self, events: bytes) -> None:
        self._events = events

    def chunks(self) -> AsyncIterator[bytes]:
        """The events."""
        return once(self._events)

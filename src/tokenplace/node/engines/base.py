"""What an engine is: something that answers OpenAI requests.

    async with engine.open("/v1/chat/completions", body) as answer:
        answer.status, answer.content_type
        async for chunk in answer.chunks(): ...

Leaving the block cancels: the engine frees the slot at once, whatever it was doing. An engine is always asked to
stream (`body["stream"] is True` for chat and completions); the node's `api` assembles JSON answers from the stream.

An engine may go down and come back by itself between `start` and `stop`. Whoever offers its work follows it:

    while True:
        await engine.wait_ready(False)   # it went down: stop taking jobs
        await engine.wait_ready()        # it is warm again
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from tokenplace.wire.card import ModelCard

JsonObject = Mapping[str, Any]
"""A parsed and validated request body; only `openai/` and `api` know its fields."""


class EngineAnswer(Protocol):
    """An answer as it comes out of the engine."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def content_type(self) -> str:
        """`text/event-stream` or `application/json`."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they come. Raises EngineCrashed when the engine dies under the answer."""


class Engine(Protocol):
    """The model runtime of a node, whichever it is."""

    @property
    def slots(self) -> int:
        """How many answers it decodes well together."""

    @property
    def models(self) -> Sequence[ModelCard]:
        """What it serves, as it stands on the node's card. It may change while the engine runs."""

    @property
    def ready(self) -> bool:
        """Whether a request would be answered now."""

    async def wait_ready(self, ready: bool = True) -> None:
        """Return when `ready` is what was asked for, or has been meanwhile; at once when it is so already."""

    async def start(self) -> None:
        """Get warm: returns when the first request would be answered. Raises EngineError."""

    async def stop(self) -> None:
        """Give everything back. Never raises."""

    def open(self, path: str, body: JsonObject) -> AbstractAsyncContextManager[EngineAnswer]:
        """Ask. `path` is OpenAI's (`/v1/chat/completions`). Raises EngineError when it cannot be asked.

        EngineFull where only others' answers stand in the way.
        """


class Readiness:
    """Up or down, and a way to wait for either. No change is lost on somebody who waits already."""

    def __init__(self) -> None:
        self._is = {True: asyncio.Event(), False: asyncio.Event()}
        self._is[False].set()

    @property
    def up(self) -> bool:
        """The present state; down at first."""
        return self._is[True].is_set()

    def set(self, up: bool) -> None:
        """Tell everybody who waits for this state."""
        self._is[not up].clear()
        self._is[up].set()

    async def wait(self, up: bool) -> None:
        """Return when the state is `up`, or has been meanwhile."""
        await self._is[up].wait()

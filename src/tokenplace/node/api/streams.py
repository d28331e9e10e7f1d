"""From the engine's stream of chunks to what the person's program gets: events, or one JSON."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic_core import from_json

from tokenplace.errors import ApiError, EngineCrashed, EngineError, TooLarge
from tokenplace.node.api.answers import let_go
from tokenplace.node.engines.base import EngineAnswer
from tokenplace.openai import errors, jsontext
from tokenplace.openai.asking import EngineBody
from tokenplace.openai.chat import Chunk
from tokenplace.openai.events import Event, EventParser, data_event, done_event
from tokenplace.openai.usage import Tally, Usage


class Repair(Protocol):
    """Makes an engine's chunks right."""

    def take(self, chunk: Mapping[str, Any]) -> list[Chunk]:
        """What one chunk becomes."""

    def end(self) -> list[Chunk]:
        """What is left to say once the engine said [DONE]."""


class Assembly(Protocol):
    """Adds chunks up to one answer."""

    def take(self, chunks: Sequence[Chunk]) -> None:
        """Add chunks."""

    def whole(self, usage: Usage | None) -> dict[str, Any]:
        """The answer."""


class Voice(Protocol):
    """How chunks are told as events."""

    def say(self, chunks: Sequence[Chunk]) -> bytes:
        """These chunks."""

    def end(self, usage: Usage | None) -> bytes:
        """The mark of a whole stream; `usage` where it was asked for."""


class Plainly:
    """Each chunk an event, then [DONE]: chat and completions."""

    def say(self, chunks: Sequence[Chunk]) -> bytes:
        """These chunks."""
        return b"".join(map(data_event, chunks))

    def end(self, usage: Usage | None) -> bytes:  # noqa: ARG002 - the usage chunk, where asked for, went before
        """The mark of a whole stream."""
        return done_event()


def _same(param: str | None) -> str | None:
    return param


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was found good, and all that its answer needs."""

    path: str
    """The engine's."""
    body: EngineBody
    stream: bool
    tally: Tally
    repair: Repair
    assembly: Assembly
    context: int | None
    words: str
    """The parameter that carries the words, for refusals."""
    voice: Voice = field(default_factory=Plainly)
    param: Callable[[str | None], str | None] = _same
    """How the request that came calls a parameter of the request that was made of it."""
    said: bytes | None = None
    """The engine's events where the node itself answers, and the engine is not asked."""

    def blame(self, error: ApiError | EngineError) -> ApiError | EngineError:
        """A refusal in the terms of the request that came."""
        if isinstance(error, ApiError):
            error.param = self.param(error.param)
        return error


class Pieces:
    """The engine's bytes, made into chunks that are right."""

    def __init__(self, answer: EngineAnswer, asked: Asked) -> None:
        self._bytes = answer.chunks()
        self._asked = asked
        self._events = EventParser()
        self._done = False

    async def first(self) -> list[Chunk]:
        """The chunks up to the first that says anything. A refusal here may still become a status.

        Raises EngineError, also where the answer ends without any, and ApiError.
        """
        while True:
            chunks = await self.more()
            if chunks is None:
                raise EngineError("The model runtime ended its answer without giving one.")
            if chunks:
                return chunks

    async def more(self) -> list[Chunk] | None:
        """The chunks of the engine's next bytes, None after the end. Raises EngineError, ApiError."""
        if self._done:
            return None
        try:
            data = await anext(self._bytes)
        except StopAsyncIteration:
            raise EngineCrashed from None  # a stream without [DONE] did not end, it broke
        chunks: list[Chunk] = []
        for event in self._fed(data):
            if event.done:
                self._done = True
                chunks += self._asked.repair.end()
                break
            try:
                told = from_json(event.data)
            except ValueError:
                raise EngineError("The model runtime sent an event that is not JSON.") from None
            if told is None:  # llama.cpp before a completion of several prompts
                continue
            if not isinstance(told, dict):
                raise EngineError("The model runtime sent an event that is no chunk.")
            if event.name == b"error" or "error" in told:
                refusal = errors.in_stream(event.data, context=self._asked.context, words=self._asked.words)
                raise self._asked.blame(refusal)
            chunks += self._asked.repair.take(told)
        return chunks

    def _fed(self, data: bytes) -> list[Event]:
        try:
            return self._events.feed(data)
        except TooLarge as error:
            raise EngineError(error.message) from error

    async def close(self) -> None:
        """Let go of the engine's bytes."""
        await let_go(self._bytes)


async def as_events(first: list[Chunk], pieces: Pieces, asked: Asked) -> AsyncGenerator[bytes]:
    """Server-sent events, each piece before the next is taken from the engine."""
    chunks: list[Chunk] | None = first
    while chunks is not None:
        if chunks:
            yield asked.voice.say(chunks)
        chunks = await pieces.more()
    yield asked.voice.end(asked.tally.told)


async def as_json(first: list[Chunk], pieces: Pieces, asked: Asked) -> AsyncGenerator[bytes]:
    """One JSON, at the end."""
    chunks: list[Chunk] | None = first
    while chunks is not None:
        asked.assembly.take(chunks)
        chunks = await pieces.more()
    yield jsontext.write(asked.assembly.whole(asked.tally.told))

"""The node's API: an opened request in, an exact OpenAI answer out.

    async with api.answer("/v1/chat/completions", body) as answer:
        answer.status, answer.content_type         # known once the engine's first piece is there
        async for piece in answer.body(): ...      # server-sent events, or one JSON
        answer.usage                               # the best that is known, also after a break

What is wrong with a request is told before the engine hears of it. The engine is always asked to stream, since only
a streamed request frees its slot when it is dropped; JSON answers are put together here. A refusal, or an engine that
fails before its first piece, becomes a status and JSON; what fails later raises EngineError, and nothing that
looks like an ending has been sent then.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Protocol

from pydantic_core import from_json

from tokenplace.errors import ApiError, EngineCrashed, EngineError, TooLarge
from tokenplace.node.engines.base import Engine, EngineAnswer
from tokenplace.openai import errors, jsontext, refusals
from tokenplace.openai.asking import EngineBody, Traits, ask_chat, ask_completion
from tokenplace.openai.chat import ChatAssembly, ChatRepair, Chunk
from tokenplace.openai.completions import CompletionAssembly, CompletionRepair
from tokenplace.openai.events import CONTENT_TYPE as EVENT_STREAM
from tokenplace.openai.events import EventParser, data_event, done_event
from tokenplace.openai.messages import words_of
from tokenplace.openai.requests import read_chat, read_completion
from tokenplace.openai.usage import Tally, Usage
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
JSON = "application/json"

MAX_ENGINE_ERROR = 64 * 1024
"""Bytes of an engine's error answer that are read."""

Screen = Callable[[Sequence[str]], None]
"""Reads the words of a request before the engine does; raises ApiError to refuse them."""


class Answer:
    """One answer. `refusal` is what went wrong before its first piece, None where nothing did."""

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


class NodeApi:
    """OpenAI's API over one engine.

    `traits` says what the engine can do; `aliases` are further names of served models; `screen` may refuse words;
    `now` is unix seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        traits: Traits | None = None,
        aliases: Mapping[str, str] | None = None,
        screen: Screen | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._traits = traits or Traits()
        self._aliases = dict(aliases or {})
        self._screen = screen
        self._now = now

    @asynccontextmanager
    async def answer(self, path: str, body: bytes) -> AsyncIterator[Answer]:
        """Answer one request. Leaving the block cancels it: the engine stops whatever it was doing for it.

        Nothing is raised for a request that is refused: the answer then has the status and JSON of the refusal.
        """
        async with AsyncExitStack() as stack:
            try:
                answer = await self._begin(stack, path, body)
            except (ApiError, EngineError, TooLarge) as error:
                await stack.aclose()  # a slow reader of a refusal holds no slot
                answer = _refused(_as_refusal(error))
            yield answer

    async def _begin(self, stack: AsyncExitStack, path: str, body: bytes) -> Answer:
        """Ask the engine and wait for its first piece. Raises ApiError, EngineError."""
        asked = self._read(path, body)
        engine_answer = await stack.enter_async_context(self._engine.open(path, asked.body))
        if engine_answer.status != HTTPStatus.OK:
            raise errors.translate(
                engine_answer.status,
                await _beginning(engine_answer, MAX_ENGINE_ERROR),
                context=asked.context,
                words=asked.words,
            )
        if not engine_answer.content_type.startswith("text/event-stream"):
            raise EngineError("The model runtime does not stream.")
        pieces = _Pieces(engine_answer, asked)
        stack.push_async_callback(pieces.close)
        first = await pieces.first()
        out = _as_events(first, pieces) if asked.stream else _as_json(first, pieces, asked)
        stack.push_async_callback(out.aclose)
        return Answer(HTTPStatus.OK, EVENT_STREAM if asked.stream else JSON, out, asked.tally)

    def _read(self, path: str, body: bytes) -> _Asked:
        """Check the request and say how to ask the engine. Raises ApiError."""
        if path == CHAT:
            return self._read_chat(body)
        if path == COMPLETIONS:
            return self._read_completion(body)
        raise refusals.path_unknown(path)

    def _read_chat(self, body: bytes) -> _Asked:
        request = read_chat(body)
        card, traits = self._model(request.model)
        self._look([words_of(message) for message in request.messages])
        engine_body, order = ask_chat(request, traits, model=card.id, created=int(self._now()))
        tally = Tally(order.choices)
        return _Asked(
            body=engine_body,
            stream=bool(request.stream),
            tally=tally,
            repair=ChatRepair(order, tally),
            assembly=ChatAssembly(order),
            context=traits.context,
            words="messages",
        )

    def _read_completion(self, body: bytes) -> _Asked:
        request = read_completion(body)
        card, traits = self._model(request.model)
        self._look([prompt for prompt in request.prompts if isinstance(prompt, str)])
        engine_body, order = ask_completion(request, traits, model=card.id, created=int(self._now()))
        tally = Tally(request.choices)
        return _Asked(
            body=engine_body,
            stream=bool(request.stream),
            tally=tally,
            repair=CompletionRepair(order, tally),
            assembly=CompletionAssembly(order),
            context=traits.context,
            words="prompt",
        )

    def _model(self, name: str) -> tuple[ModelCard, Traits]:
        """The model meant, and what it can do. Raises ApiError when it is not served here."""
        served = {card.id: card for card in self._engine.models}
        card = served.get(ModelId(self._aliases.get(name, name)))
        if card is None:
            raise refusals.model_unknown(name, sorted(served))
        traits = self._traits
        return card, replace(
            traits,
            max_choices=self._engine.slots if traits.max_choices is None else traits.max_choices,
            context=card.context if traits.context is None else traits.context,
            vision="vision" in card.capabilities if traits.vision is None else traits.vision,
        )

    def _look(self, words: Sequence[str]) -> None:
        if self._screen is not None:
            self._screen(words)


class _Repair(Protocol):
    """What both kinds of repair do."""

    def take(self, chunk: Mapping[str, Any]) -> list[Chunk]: ...

    def end(self) -> list[Chunk]: ...


class _Assembly(Protocol):
    """What both kinds of assembly do."""

    def take(self, chunks: Sequence[Chunk]) -> None: ...

    def whole(self, usage: Usage | None) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that was found good, and all that its answer needs."""

    body: EngineBody
    stream: bool
    tally: Tally
    repair: _Repair
    assembly: _Assembly
    context: int | None
    words: str


class _Pieces:
    """The engine's bytes, made into chunks that are right."""

    def __init__(self, answer: EngineAnswer, asked: _Asked) -> None:
        self._bytes = answer.chunks()
        self._asked = asked
        self._events = EventParser()
        self._done = False

    async def first(self) -> list[Chunk]:
        """The chunks up to the first that says anything. What goes wrong here may still become a status."""
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
        for event in self._events.feed(data):
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
                raise errors.in_stream(event.data, context=self._asked.context, words=self._asked.words)
            chunks += self._asked.repair.take(told)
        return chunks

    async def close(self) -> None:
        """Let go of the engine's bytes."""
        await _let_go(self._bytes)


async def _as_events(first: list[Chunk], pieces: _Pieces) -> AsyncGenerator[bytes]:
    chunks: list[Chunk] | None = first
    while chunks is not None:
        if chunks:
            yield b"".join(map(data_event, chunks))
        chunks = await _later(pieces)
    yield done_event()


async def _as_json(first: list[Chunk], pieces: _Pieces, asked: _Asked) -> AsyncGenerator[bytes]:
    chunks: list[Chunk] | None = first
    while chunks is not None:
        asked.assembly.take(chunks)
        chunks = await _later(pieces)
    yield jsontext.write(asked.assembly.whole(asked.tally.told))


async def _later(pieces: _Pieces) -> list[Chunk] | None:
    """More chunks; the status is out by now, so that every failure is the engine's."""
    try:
        return await pieces.more()
    except ApiError as refusal:
        raise EngineError(refusal.message) from refusal
    except TooLarge as error:
        raise EngineError(error.message) from error


def _as_refusal(error: ApiError | EngineError | TooLarge) -> ApiError:
    """What went wrong before the first piece, as a status. The engine's own words stay here."""
    if isinstance(error, ApiError):
        return error
    return errors.crashed() if isinstance(error, EngineCrashed) else errors.failed()


def _refused(refusal: ApiError) -> Answer:
    return Answer(refusal.status, JSON, _once(jsontext.write(refusal.as_json())), Tally(), refusal)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _beginning(answer: EngineAnswer, most: int) -> bytes:
    """So much of an error's body as is worth reading."""
    body = b""
    chunks = answer.chunks()
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) >= most:
                break
    finally:
        await _let_go(chunks)
    return body[:most]


async def _let_go(chunks: AsyncIterator[bytes]) -> None:
    """Close an iterator that can be closed, now rather than when it is collected."""
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()

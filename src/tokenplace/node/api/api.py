"""The node's API: an opened request in, an exact OpenAI answer out.

    async with api.answer("/v1/chat/completions", body) as answer:
        answer.status, answer.content_type         # known once the engine's first piece is there
        async for piece in answer.body(): ...      # server-sent events, or one JSON
        answer.usage                               # the best that is known, also after a break

What is wrong with a request is told before the engine hears of it. The engine is always asked to stream words, since
only a streamed request frees its slot when it is dropped; JSON answers are put together here. What is wrong with the
request itself becomes a status and JSON. An engine that fails raises EngineError: out of the block's head where it
gave nothing, so that another node can be asked, and from `body` later, and nothing that looks like an ending has been
sent then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from http import HTTPStatus

from pydantic_core import from_json

from tokenplace.errors import ApiError, EngineError
from tokenplace.node.api.answers import JSON, MAX_ENGINE_ERROR, Answer, Said, beginning, once, refused
from tokenplace.node.api.served import Meant, Names
from tokenplace.node.api.streams import Asked, Pieces, as_events, as_json
from tokenplace.node.engines.base import Engine, EngineAnswer
from tokenplace.node.render import render
from tokenplace.openai import errors, jsontext, refusals
from tokenplace.openai.asking import (
    Traits,
    ask_chat,
    ask_completion,
    pictures_at_the_end,
    under_charter,
    without_pictures,
)
from tokenplace.openai.catalogue import AdapterEntry
from tokenplace.openai.chat import ChatAssembly, ChatRepair
from tokenplace.openai.completions import CompletionAssembly, CompletionRepair
from tokenplace.openai.drawing import drawing_answer, read_drawing
from tokenplace.openai.embeddings import ask_embedding, embeddings_answer, read_embedding
from tokenplace.openai.events import CONTENT_TYPE as EVENT_STREAM
from tokenplace.openai.events import chat_events
from tokenplace.openai.pictures import describe
from tokenplace.openai.requests import ChatRequest, read_chat, read_completion
from tokenplace.openai.response_events import ResponseVoice
from tokenplace.openai.responses import read_response
from tokenplace.openai.responses_as_chat import as_chat
from tokenplace.openai.screening import has_token_ids, texts_of, unreadable
from tokenplace.openai.usage import Tally

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
IMAGES = "/v1/images/generations"
PATHS = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, IMAGES)

MAX_EMBEDDINGS = 64 * 1024 * 1024
"""Bytes of an engine's vectors: 2,048 of 1,024 numbers, written out."""

_DRAWING_AT_ONCE = 2
"""Pictures that are drawn at the same time; the model beside them wants the cores too."""

Screen = Callable[[Sequence[str]], None]
"""Reads the words of a request before the engine does; raises ApiError to refuse them."""


class NodeApi:
    """OpenAI's API over one engine.

    `traits` says what the engine can do, `traits_of` what single models of it can where they differ; `aliases`,
    `adapters` and `stands_in_for` are names beyond the engine's own (see `Names`); `screen` may refuse words; `now` is
    unix seconds.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        traits: Traits | None = None,
        traits_of: Mapping[str, Traits] | None = None,
        aliases: Mapping[str, str] | None = None,
        adapters: Iterable[AdapterEntry] = (),
        stands_in_for: Collection[str] = (),
        screen: Screen | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._names = Names(
            engine,
            traits or Traits(),
            aliases=aliases or {},
            adapters=adapters,
            stands_in_for=stands_in_for,
            traits_of=traits_of,
        )
        self._screen = screen
        self._now = now
        self._drawing = asyncio.Semaphore(_DRAWING_AT_ONCE)
        self._readers = {
            CHAT: self._read_chat,
            COMPLETIONS: self._read_completion,
            RESPONSES: self._read_response,
        }

    @asynccontextmanager
    async def answer(self, path: str, body: bytes) -> AsyncIterator[Answer]:
        """Answer one request. Leaving the block cancels it: the engine stops whatever it was doing for it.

        Nothing is raised for a request that is refused: the answer then has the status and JSON of the refusal. Raises
        EngineError for an engine that fails before its first piece.
        """
        async with AsyncExitStack() as stack:
            try:
                answer = await self._begin(stack, path, body)
            except ApiError as error:
                await stack.aclose()  # a slow reader of a refusal holds no slot
                answer = refused(error)
            yield answer

    async def _begin(self, stack: AsyncExitStack, path: str, body: bytes) -> Answer:
        """Ask the engine and wait for its first piece. Raises ApiError, EngineError."""
        if path in self._readers:
            return await self._stream(stack, self._readers[path](body))
        if path == EMBEDDINGS:
            return await self._embed(stack, body)
        if path == IMAGES:
            return await self._draw(body)
        raise refusals.path_unknown(path, PATHS)

    # ── Words ──

    async def _stream(self, stack: AsyncExitStack, asked: Asked) -> Answer:
        if asked.said is not None:
            engine_answer: EngineAnswer = Said(asked.said)
        else:
            engine_answer = await stack.enter_async_context(self._engine.open(asked.path, asked.body))
        if engine_answer.status != HTTPStatus.OK:
            told = await beginning(engine_answer, MAX_ENGINE_ERROR)
            raise asked.blame(errors.translate(engine_answer.status, told, context=asked.context, words=asked.words))
        if not engine_answer.content_type.startswith("text/event-stream"):
            raise EngineError("The model runtime does not stream.")
        pieces = Pieces(engine_answer, asked)
        stack.push_async_callback(pieces.close)
        first = await pieces.first()
        out = as_events(first, pieces, asked) if asked.stream else as_json(first, pieces, asked)
        stack.push_async_callback(out.aclose)
        return Answer(HTTPStatus.OK, EVENT_STREAM if asked.stream else JSON, out, asked.tally)

    def _read_chat(self, body: bytes) -> Asked:
        request = read_chat(body)
        meant = self._names.find(request.model)
        self._look(body)
        return self._chat(request, meant)

    def _chat(self, request: ChatRequest, meant: Meant) -> Asked:
        if meant.charter is not None:
            request = under_charter(request, meant.charter)
        traits = meant.traits
        unseen = pictures_at_the_end(request) if not traits.vision else []
        if unseen:
            request = without_pictures(request)
        engine_body, order = ask_chat(request, traits, model=meant.card.id, created=int(self._now()), name=meant.id)
        tally = Tally(order.choices)
        return Asked(
            path=CHAT,
            body=engine_body,
            stream=bool(request.stream),
            tally=tally,
            repair=ChatRepair(order, tally),
            assembly=ChatAssembly(order),
            context=traits.context,
            words="messages",
            said=chat_events(describe(unseen), order.choices) if unseen else None,
        )

    def _read_response(self, body: bytes) -> Asked:
        request = read_response(body)
        meant = self._names.find(request.model)
        self._look(body)
        chat = as_chat(request)
        try:
            asked = self._chat(chat.request, meant)
        except ApiError as error:
            error.param = chat.param(error.param)
            raise
        said = meant.traits.defaults
        voice = ResponseVoice(
            request,
            model=meant.id,
            created=int(self._now()),
            temperature=said.get("temperature", 1.0),
            top_p=said.get("top_p", 1.0),
        )
        return replace(asked, voice=voice, assembly=voice, param=chat.param)

    def _read_completion(self, body: bytes) -> Asked:
        request = read_completion(body)
        meant = self._names.find(request.model)
        if meant.charter is not None:
            raise refusals.unsupported_value("model", "Its charter is said in a chat; ask it at /v1/chat/completions.")
        self._look(body)
        engine_body, order = ask_completion(
            request, meant.traits, model=meant.card.id, created=int(self._now()), name=meant.id
        )
        tally = Tally(request.choices)
        return Asked(
            path=COMPLETIONS,
            body=engine_body,
            stream=bool(request.stream),
            tally=tally,
            repair=CompletionRepair(order, tally),
            assembly=CompletionAssembly(order),
            context=meant.traits.context,
            words="prompt",
        )

    def _look(self, body: bytes) -> None:
        """Have every word of a request read before the engine reads it."""
        if self._screen is None:
            return
        fields = from_json(body)
        if (hidden := has_token_ids(fields)) is not None:
            raise unreadable(hidden)
        self._screen(texts_of(fields))

    # ── Vectors and pictures ──

    async def _embed(self, stack: AsyncExitStack, body: bytes) -> Answer:
        request = read_embedding(body)
        meant = self._names.find(request.model)
        self._look(body)
        engine_body = ask_embedding(request, meant.traits, model=meant.card.id)
        engine_answer = await stack.enter_async_context(self._engine.open(EMBEDDINGS, engine_body))
        told = await beginning(engine_answer, MAX_EMBEDDINGS)
        if engine_answer.status != HTTPStatus.OK:
            raise errors.translate(engine_answer.status, told, context=meant.traits.context, words="input")
        try:
            vectors = from_json(told)
        except ValueError:
            raise EngineError("The model runtime sent embeddings that are not JSON.") from None
        answer, cost = embeddings_answer(request, vectors, model=meant.id)
        tally = Tally()
        tally.settle(cost)
        return Answer(HTTPStatus.OK, JSON, once(jsontext.write(answer)), tally)

    async def _draw(self, body: bytes) -> Answer:
        request = read_drawing(body)
        self._look(body)
        async with self._drawing:
            pictures = [await asyncio.to_thread(render, draft) for draft in request.drafts]
        answer = drawing_answer(request, pictures, created=int(self._now()))
        return Answer(HTTPStatus.OK, JSON, once(jsontext.write(answer)), Tally())

"""An engine that has no model and says so: it sends the last user message back, word by word, after "echo: ".

For tests, for measuring the relay, and for trying a node out before any weights are there.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tokenplace.errors import ApiError, EngineError
from tokenplace.node.engines.base import EngineAnswer, JsonObject, Readiness
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

ECHO = ModelId("echo")
_PIECE = re.compile(r"\s*\S+|\s+$")
_SSE, _JSON = "text/event-stream", "application/json"


@dataclass(slots=True)
class EchoAnswer:
    """One answer; see `EngineAnswer`."""

    status: int
    content_type: str
    _chunks: AsyncIterator[bytes]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes, one event each."""
        return self._chunks


class EchoEngine:
    """See the module. `delay` is seconds between two pieces, kept as a rhythm: a late piece delays no other."""

    def __init__(self, *, model: ModelId = ECHO, slots: int = 64, context: int = 8192, delay: float = 0.0) -> None:
        self._card = ModelCard(model, context, ("chat", "completions"))
        self._slots = slots
        self._delay = delay
        self._readiness = Readiness()
        self._open = 0

    @property
    def slots(self) -> int:
        """As many as it was told; it never queues."""
        return self._slots

    @property
    def models(self) -> Sequence[ModelCard]:
        """Only itself."""
        return (self._card,)

    @property
    def ready(self) -> bool:
        """Between start and stop."""
        return self._readiness.up

    async def wait_ready(self, ready: bool = True) -> None:
        """See `Engine.wait_ready`."""
        await self._readiness.wait(ready)

    async def start(self) -> None:
        """Nothing to warm up."""
        self._readiness.set(True)

    async def stop(self) -> None:
        """Nothing to give back."""
        self._readiness.set(False)

    async def busy_slots(self) -> int:
        """How many answers are open."""
        return self._open

    @asynccontextmanager
    async def open(self, path: str, body: JsonObject) -> AsyncIterator[EngineAnswer]:
        """Answer chat and completions as a stream; other paths get 404."""
        if not self._readiness.up:
            raise EngineError("The engine is not running.")
        self._open += 1
        try:
            if path == "/v1/chat/completions":
                said, prompt = _last_user_text(body), _words(json.dumps(body.get("messages", [])))
            elif path == "/v1/completions":
                said = _prompt_text(body.get("prompt"))
                prompt = _words(said)
            else:
                yield EchoAnswer(HTTPStatus.NOT_FOUND, _JSON, _not_found(path))
                return
            stream = self._stream(body, said, prompt, chat=path == "/v1/chat/completions")
            async with aclosing(stream):
                yield EchoAnswer(HTTPStatus.OK, _SSE, stream)
        finally:
            self._open -= 1

    async def _stream(self, body: JsonObject, said: str, prompt: int, *, chat: bool) -> AsyncGenerator[bytes]:
        pieces = _PIECE.findall(f"echo: {said}")
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        cut = isinstance(limit, int) and limit < len(pieces)
        if cut:
            pieces = pieces[:limit]
        model = body.get("model") or self._card.id
        # Everything of an event that is the same in all of them is written once: this loop measures other people's.
        head = json.dumps(
            {
                "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
                "object": "chat.completion.chunk" if chat else "text_completion",
                "created": int(time.time()),
                "model": model,
            }
        )[:-1]
        opened = f'data: {head}, "choices": [{{"index": 0, "logprobs": null, '
        before, after = ('"delta": {"content": ', "}") if chat else ('"text": ', "")
        loop = asyncio.get_running_loop()
        due = loop.time() + self._delay
        if chat:
            await asyncio.sleep(self._delay)
            yield (opened + '"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}\n\n').encode()
        for piece in pieces:
            due += self._delay
            await asyncio.sleep(max(0.0, due - loop.time()))
            yield f'{opened}{before}{json.dumps(piece)}{after}, "finish_reason": null}}]}}\n\n'.encode()
        last = '"delta": {}' if chat else '"text": ""'
        yield f'{opened}{last}, "finish_reason": "{"length" if cut else "stop"}"}}]}}\n\n'.encode()
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {
                "prompt_tokens": prompt,
                "completion_tokens": len(pieces),
                "total_tokens": prompt + len(pieces),
            }
            yield f'data: {head}, "choices": [], "usage": {json.dumps(usage)}}}\n\n'.encode()
        yield b"data: [DONE]\n\n"


async def _not_found(path: str) -> AsyncIterator[bytes]:
    refusal = ApiError(f"The echo engine does not know {path}.", status=HTTPStatus.NOT_FOUND, code="not_found")
    yield json.dumps(refusal.as_json()).encode()


def _words(text: str) -> int:
    return len(text.split())


def _last_user_text(body: JsonObject) -> str:
    for message in reversed(body.get("messages") or []):
        if message.get("role") == "user":
            return " ".join(_texts(message.get("content")))
    return ""


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _prompt_text(prompt: Any) -> str:
    if isinstance(prompt, list):
        return " ".join(str(item) for item in prompt)
    return str(prompt or "")

"""An engine that is a server of its own: whatever speaks OpenAI's API (llama-server, vLLM, Ollama, LM Studio).

Its models are asked for once, at start. It is looked at again and again, so that a node whose server went away stops
taking jobs, and takes them again when the server is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from tokenplace.errors import EngineError
from tokenplace.node.engines.base import EngineAnswer, JsonObject, Readiness
from tokenplace.node.engines.dialect import OWNER, WithoutProgress, decodes, prepared
from tokenplace.node.engines.endpoint import Endpoint
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

log = structlog.get_logger()

DEFAULT_CONTEXT = 4096
"""Tokens, where the upstream does not tell. What Ollama gives a model unless it is told otherwise."""

LOOK_EVERY = 10.0
"""Seconds between two looks at the upstream."""

MODEL_LIST_TIMEOUT = 10.0

_CONTEXT_FIELDS = ("n_ctx", "max_model_len", "context_length", "max_context_length", "context_window", "n_ctx_train")
"""What servers call it: llama-server (in `meta`), vLLM and SGLang, OpenRouter and LM Studio, Mistral, Groq."""


class UpstreamEngine:
    """The server at `url` (`http://host:port` or `…/v1`).

    `names` chooses and renames its models: the id on the node's card → the upstream's own id; left out, all of them
    are served under their own names. `context` is for models of which the upstream does not tell it. `capabilities`
    are what a model (by the upstream's id) can do besides chat and completions: no upstream tells.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        slots: int = 4,
        context: int = DEFAULT_CONTEXT,
        names: Mapping[ModelId, str] | None = None,
        capabilities: Mapping[str, Sequence[str]] | None = None,
        look_every: float = LOOK_EVERY,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise EngineError(f"An upstream is an address that starts with http:// or https://, not {url!r}.")
        self._root = url.rstrip("/").removesuffix("/v1").rstrip("/")
        self._key = key
        self._slots = slots
        self._context = context
        self._names = dict(names or {})
        self._capabilities = dict(capabilities or {})
        self._look_every = look_every
        self._readiness = Readiness()
        self._doubt = asyncio.Event()
        self._endpoint: Endpoint | None = None
        self._models: tuple[ModelCard, ...] = ()
        self._is_llama = False
        self._watcher: asyncio.Task[None] | None = None

    @property
    def slots(self) -> int:
        """As configured: an upstream does not tell."""
        return self._slots

    @property
    def models(self) -> Sequence[ModelCard]:
        """What the upstream listed at start."""
        return self._models

    @property
    def ready(self) -> bool:
        """Whether the upstream answered when it was last looked at."""
        return self._readiness.up

    async def wait_ready(self, ready: bool = True) -> None:
        """See `Engine.wait_ready`."""
        await self._readiness.wait(ready)

    async def start(self) -> None:
        """Ask for its models. Raises EngineError when it does not answer or lacks one that was named."""
        if self._watcher is not None:
            raise EngineError("This engine was started already.")
        self._endpoint = Endpoint(self._root, key=self._key)
        try:
            listed = await self._listed()
            self._models = self._chosen(listed)
            self._is_llama = any(model.get("owned_by") == OWNER for model in listed.values())
        except BaseException:
            await self.stop()
            raise
        self._readiness.set(True)
        self._watcher = asyncio.create_task(self._look(), name="upstream-engine")

    async def stop(self) -> None:
        """Close the connections; answers in flight raise EngineCrashed. May be called twice."""
        self._readiness.set(False)
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    @asynccontextmanager
    async def open(self, path: str, body: JsonObject) -> AsyncIterator[EngineAnswer]:
        """Ask the upstream, its own model name put in. Leaving the block closes the connection."""
        if self._endpoint is None:
            raise EngineError("The engine is not running.")
        wanted = body.get("model")
        if wanted in self._names:
            body = {**body, "model": self._names[wanted]}
        try:
            if self._is_llama and decodes(path):
                async with self._endpoint.open(path, prepared(body)) as answer:
                    yield WithoutProgress(answer)
            else:
                async with self._endpoint.open(path, body) as answer:
                    yield answer
        except EngineError:
            self._doubt.set()
            raise

    async def _listed(self) -> Mapping[str, Mapping[str, Any]]:
        if self._endpoint is None:
            raise EngineError("The engine is not running.")
        listing = await self._endpoint.get_json("/v1/models", timeout=MODEL_LIST_TIMEOUT)
        try:
            return {str(model["id"]): model for model in listing["data"]}
        except (KeyError, TypeError) as error:
            raise EngineError(f"{self._root}/v1/models does not list models the way OpenAI's API does.") from error

    def _chosen(self, listed: Mapping[str, Mapping[str, Any]]) -> tuple[ModelCard, ...]:
        if not listed:
            raise EngineError(f"{self._root} lists no models; load one there first.")
        for theirs in self._names.values():
            if theirs not in listed:
                raise EngineError(f"{self._root} has no model {theirs!r}; it has {', '.join(sorted(listed))}.")
        chosen = self._names or {ModelId(name): name for name in listed}
        return tuple(
            ModelCard(
                ours,
                _context_of(listed[theirs]) or self._context,
                ("chat", "completions", *self._capabilities.get(theirs, ())),
            )
            for ours, theirs in chosen.items()
        )

    async def _look(self) -> None:
        """Follow whether the upstream answers. Cancelled by `stop`."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every):
                    await self._doubt.wait()
            self._doubt.clear()
            was = self._readiness.up
            try:
                await self._listed()
            except EngineError as error:
                self._readiness.set(False)
                if was:
                    log.warning("upstream_lost", reason=error.message)
            else:
                self._readiness.set(True)
                if not was:
                    log.info("upstream_back")


def _context_of(model: Mapping[str, Any]) -> int | None:
    """The context that the upstream tells of, in tokens: what it serves before what the model was trained for."""
    meta = model.get("meta")
    for fields in (meta if isinstance(meta, dict) else {}, model):
        for name in _CONTEXT_FIELDS:
            value = fields.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None

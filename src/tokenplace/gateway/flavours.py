"""The versions of the API and what can be asked in each, as data: `app` makes routes of it, `described` a document."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from tokenplace.openai.catalogue import ApiVersion
from tokenplace.openai.drawing import DrawingRequest
from tokenplace.openai.embeddings import EmbeddingRequest
from tokenplace.openai.requests import ChatRequest, CompletionRequest
from tokenplace.openai.responses import ResponseRequest


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that is put to a node. `path` stands behind each prefix; the node knows it under /v1."""

    path: str
    summary: str
    shape: type[BaseModel]
    answer: str
    """The name of the answer's shape in the document."""
    streams: bool = False
    draws: bool = False
    """It needs no model, so that any node will do."""

    @property
    def node_path(self) -> str:
        """What the node calls it."""
        return f"/v1{self.path}"


OPERATIONS = (
    Operation("/chat/completions", "Chat", ChatRequest, "ChatCompletion", streams=True),
    Operation("/completions", "Complete a text", CompletionRequest, "Completion", streams=True),
    Operation("/responses", "Respond, without a memory between requests", ResponseRequest, "Response", streams=True),
    Operation("/embeddings", "Turn texts into vectors", EmbeddingRequest, "Embeddings"),
    Operation("/images/generations", "Draw a placeholder picture", DrawingRequest, "Images", draws=True),
)


@dataclass(frozen=True, slots=True)
class Flavour:
    """One version of the API: what it lists, whether it streams and draws, and where it is mounted."""

    version: ApiVersion
    streams: bool
    draws: bool
    prefixes: tuple[str, ...]

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What can be asked under its prefixes."""
        return tuple(operation for operation in OPERATIONS if self.draws or not operation.draws)


FLAVOURS = (
    Flavour(ApiVersion.V1, streams=False, draws=True, prefixes=("/v1", "/api/v1")),
    Flavour(ApiVersion.V2, streams=True, draws=False, prefixes=("/v2", "/api/v2")),
)

"""A client that knows some models and answers what it was told to, without any network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tokenplace.client.classic import ClassicNode
from tokenplace.client.client import Served
from tokenplace.errors import TokenPlaceError
from tokenplace.openai.calls import Head
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId, NodeId


class ToldAnswer:
    """What a node said."""

    node = NodeId("n" * 32)
    usage = None

    def __init__(self, status: int, content_type: str, parts: Sequence[bytes | TokenPlaceError]) -> None:
        self.head = Head(status, content_type)
        self._parts = parts

    async def chunks(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if isinstance(part, TokenPlaceError):
                raise part
            yield part

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


class ToldClient:
    """Stands where `Client` does; remembers what it was asked."""

    def __init__(
        self,
        *parts: bytes | TokenPlaceError,
        status: int = 200,
        content_type: str = "application/json",
        serves: dict[str, int] | None = None,
        fails: TokenPlaceError | None = None,
    ) -> None:
        self._answer = ToldAnswer(status, content_type, parts or (b'{"ok":true}',))
        self._serves = {"tiny": 2} if serves is None else serves
        self._fails = fails
        self.asked: list[tuple[str, bytes, str | None]] = []
        self.asked_of: list[NodeId | None] = []
        self.classic: list[ClassicNode] = []

    async def models(self) -> list[Served]:
        return [
            Served(ModelId(name), nodes, ModelCard(ModelId(name), 2048, ("chat",)))
            for name, nodes in self._serves.items()
        ]

    async def classic_nodes(
        self, *, model: ModelId | None = None, node: NodeId | None = None, fresh: bool = False
    ) -> list[ClassicNode]:
        return [each for each in self.classic if node in (None, each.node) and (model is None or model in each.models)]

    @asynccontextmanager
    async def ask(
        self, path: str, body: bytes, *, model: str | None = None, node: NodeId | None = None, on_news: Any = None
    ) -> AsyncIterator[ToldAnswer]:
        self.asked.append((path, body, model))
        self.asked_of.append(node)
        if self._fails is not None:
            raise self._fails
        yield self._answer

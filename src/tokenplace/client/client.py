"""The Python client: private answers from volunteers' machines.

async with Client(["https://relay.example"]) as client:
    print(await client.chat([{"role": "user", "content": "Hello"}]))

    async with client.ask("/v1/chat/completions", {"model": …, "messages": …, "stream": True}) as answer:
        async for chunk in answer.chunks(): ...
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Self

from tokenplace.client.answer import LINGER, NOBODY, Answer, News
from tokenplace.client.classic import MOST_CLASSIC, ClassicNode, classic_nodes
from tokenplace.client.door import Door, HttpDoor
from tokenplace.client.relays import Relays
from tokenplace.client.trust import Memory, Trust
from tokenplace.errors import ApiError, NoNode
from tokenplace.openai.calls import MODEL_FREE, Call
from tokenplace.openai.catalogue import Catalogue
from tokenplace.openai.events import EventParser
from tokenplace.openai.models import ListedModel
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId, NodeId

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Served:
    """A model somebody serves now: its id, how many nodes, and what one of their cards says of it."""

    id: ModelId
    nodes: int
    card: ModelCard | None

    def listed(self, base: ModelId | None = None) -> ListedModel:
        """As OpenAI's list of models shows it; an adapter names its `base`."""
        return ListedModel(
            id=self.id,
            context_length=self.card.context if self.card else None,
            capabilities=self.card.capabilities if self.card else (),
            nodes=self.nodes,
            loaded=True,
            base=base,
        )


class Client:
    """Asks nodes through relays, sealed end to end.

    `relays` are base URLs (or doors), tried in order. `pins` are the only node ids to be asked, if any are given.
    `issuers` are ids of those whose `vouchers` (their texts) are believed: the nodes they name may be asked too, and
    besides pins and these nobody else. `memory` remembers the nodes met. A `sticky` client asks the node that answered
    it last while that has a free slot (it may know the beginning of the prompt still); others spread over the nodes.
    A client may be used by many tasks at once.
    """

    def __init__(
        self,
        relays: Sequence[str | Door],
        *,
        pins: Iterable[NodeId] = (),
        issuers: Iterable[NodeId] = (),
        vouchers: Iterable[str] = (),
        memory: Memory | None = None,
        linger: float = LINGER,
        sticky: bool = False,
    ) -> None:
        self.trust = Trust(pins, memory, issuers=issuers)
        for voucher in vouchers:
            self.trust.vouch(voucher)
        doors = [HttpDoor(relay) if isinstance(relay, str) else relay for relay in relays]
        self._relays = Relays(doors, named=lambda: self.trust.named, sticky=sticky)
        self._linger = linger

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give connections back."""
        await self._relays.aclose()

    async def models(self) -> list[Served]:
        """What is served right now. Raises RelayUnreachable."""
        counts: dict[ModelId, int] = {}
        cards: dict[ModelId, ModelCard] = {}
        for _, directory in await self._relays.directories(None):
            for model, count in directory.models.items():
                counts[model] = max(count, counts.get(model, 0))
            for listing in directory.listings:
                for card in listing.card.body.models:
                    cards.setdefault(card.id, card)
        return [Served(model, count, cards.get(model)) for model, count in sorted(counts.items())]

    async def classic_nodes(
        self, *, model: ModelId | None = None, node: NodeId | None = None, fresh: bool = False
    ) -> list[ClassicNode]:
        """Nodes that open requests of the original's protocol, with their keys: those of a model, one, or any.

        What a relay said of one node two seconds ago is believed unless it has to be `fresh`. Raises RelayUnreachable.
        """
        try:
            if node is not None:
                found = await self._relays.having(node, fresh=fresh)
            else:
                found = await self._relays.several_nodes(model, MOST_CLASSIC)
        except NoNode:
            return []
        return classic_nodes(found, self.trust)

    @asynccontextmanager
    async def ask(
        self,
        path: str,
        body: Mapping[str, Any] | bytes,
        *,
        model: str | None = None,
        node: NodeId | None = None,
        on_news: Callable[[News], None] | None = None,
    ) -> AsyncIterator[Answer]:
        """Make one OpenAI call of `path` (`/v1/…`) and read its answer; leaving the block cancels the rest.

        `body` is the JSON body, as an object or as bytes (then `model` must be given for the choice of a node, or
        the `node` itself).
        Raises NoNode, RelayUnreachable, Refused, UntrustedCard, JobFailed, and ApiError for what broke the answer
        before its head.
        """
        if not isinstance(body, bytes):
            model = model or body.get("model")
            body = json.dumps(body).encode()
        answer = Answer(
            relays=self._relays,
            trust=self.trust,
            call=Call(path, body),
            model=_catalogue().served_as(_catalogue().canonical(model)) if model and path not in MODEL_FREE else None,
            only=node,
            linger=self._linger,
            on_news=on_news,
        )
        try:
            await answer.begin()
            yield answer
        finally:
            await answer.close()

    async def stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        on_news: Callable[[News], None] | None = None,
        on_answer: Callable[[Answer], None] | None = None,
        **options: Any,
    ) -> AsyncGenerator[dict[str, Any]]:
        """The chunks of a streamed chat answer, as OpenAI's `chat.completion.chunk` objects.

        `on_answer` is told once who answers. Raises ApiError for a request the node refuses, and what `ask` raises.
        """
        body = {**options, "model": model or await self.any_model(), "messages": list(messages), "stream": True}
        async with self.ask(CHAT, body, on_news=on_news) as answer:
            if answer.head.status != HTTPStatus.OK:
                raise error_of(answer.head.status, await answer.read())
            if on_answer is not None:
                on_answer(answer)
            parser = EventParser()
            async with aclosing(answer.chunks()) as chunks:
                async for chunk in chunks:
                    for event in parser.feed(chunk):
                        if not event.done:
                            yield json.loads(event.data)

    async def chat(
        self, messages: Sequence[Mapping[str, Any]], *, model: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """One whole chat answer, as OpenAI's `chat.completion` object. Raises as `stream` does."""
        body = {**options, "model": model or await self.any_model(), "messages": list(messages)}
        async with self.ask(CHAT, body) as answer:
            content = await answer.read()
        if answer.head.status != HTTPStatus.OK:
            raise error_of(answer.head.status, content)
        completion: dict[str, Any] = json.loads(content)
        return completion

    async def any_model(self) -> str:
        """For who has no choice of their own: the model that most nodes serve. Raises NoNode, RelayUnreachable."""
        served = await self.models()
        if not served:
            raise NoNode(NOBODY)
        return max(served, key=lambda model: model.nodes).id


@cache
def _catalogue() -> Catalogue:
    """Which names are aliases or adapters; nodes know too, but must be chosen before they can be asked."""
    return Catalogue.load()


def error_of(status: int, content: bytes) -> ApiError:
    """An error answer of a node as an exception."""
    try:
        error = json.loads(content)["error"]
        return ApiError(
            str(error["message"]),
            status=status,
            type=str(error.get("type") or "server_error"),
            param=error.get("param"),
            code=error.get("code"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiError("The node answered with an error that cannot be read.", status=status, type="server_error")

"""The client for programs without async: the same client, on an event loop in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from tokenplace.client.answer import LINGER, Answer, News
from tokenplace.client.client import Client, Served
from tokenplace.client.trust import Memory
from tokenplace.wire.ids import NodeId

T = TypeVar("T")


class SyncClient:
    """As `Client`, in blocking calls.

    with SyncClient(["https://relay.example"]) as client:
        print(client.chat([{"role": "user", "content": "Hello"}])["choices"][0]["message"]["content"])
    """

    def __init__(
        self,
        relays: Sequence[str],
        *,
        pins: Iterable[NodeId] = (),
        issuers: Iterable[NodeId] = (),
        vouchers: Iterable[str] = (),
        memory: Memory | None = None,
        linger: float = LINGER,
    ) -> None:
        self._client = Client(relays, pins=pins, issuers=issuers, vouchers=vouchers, memory=memory, linger=linger)
        self._running: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        self._running = start_blocking_portal("asyncio", name="token.place client")
        self._portal = self._running.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give connections and the thread back."""
        if self._running is not None and self._portal is not None:
            self._portal.call(self._client.aclose)
            running, self._running, self._portal = self._running, None, None
            running.__exit__(None, None, None)

    def models(self) -> list[Served]:
        """What is served right now. Raises RelayUnreachable."""
        return self._there.call(self._client.models)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, model: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """One whole chat answer, as OpenAI's `chat.completion` object. Raises as `Client.chat` does."""

        async def chat() -> dict[str, Any]:
            return await self._client.chat(messages, model=model, **options)

        return self._there.call(chat)

    def stream(
        self, messages: Sequence[Mapping[str, Any]], *, model: str | None = None, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed chat answer. Closing the iterator stops the node. Raises as `Client.stream` does."""
        return self._iterate(self._client.stream(messages, model=model, **options))

    @contextmanager
    def ask(
        self,
        path: str,
        body: Mapping[str, Any] | bytes,
        *,
        model: str | None = None,
        on_news: Callable[[News], None] | None = None,
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Make one OpenAI call; gives the answer and its body. Leaving the block cancels the rest."""
        asking = self._client.ask(path, body, model=model, on_news=on_news)
        with self._there.wrap_async_context_manager(asking) as answer:
            yield answer, self._iterate(answer.chunks())

    @property
    def _there(self) -> BlockingPortal:
        if self._portal is None:
            raise RuntimeError("use the client in a with block")
        return self._portal

    def _iterate(self, source: AsyncGenerator[T]) -> Iterator[T]:
        end = object()

        async def following() -> Any:
            return await anext(source, end)

        try:
            while (item := self._there.call(following)) is not end:
                yield item
        finally:
            if self._portal is not None:  # an iterator may be let go after its client
                self._portal.call(source.aclose)

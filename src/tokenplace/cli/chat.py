"""`tokenplace chat`: a conversation in the terminal, or one question in a pipe."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from rich.console import Console

from tokenplace.cli.clients import open_client
from tokenplace.client.answer import Answer, News, Phase
from tokenplace.client.client import Client
from tokenplace.errors import NoNode, TokenPlaceError
from tokenplace.wire.ids import show_node_id

_ENDS = frozenset({"exit", "quit", "bye", "/exit", "/quit"})
_HELP = "/new starts afresh, /model ID changes the model, /exit or Ctrl-D ends; Ctrl-C stops an answer."


def run(
    *,
    relays: Sequence[str],
    model: str | None,
    message: str | None,
    system: str | None,
    options: Mapping[str, Any],
) -> None:
    """Chat until the person ends it, or answer one message and end."""
    if message == "-":
        message = sys.stdin.read().strip()
    chat = _Chat(relays, model, system, dict(options))
    if message is not None:
        asyncio.run(chat.once(message))
    else:
        chat.talk()


class _Chat:
    """A conversation: its history and how it is shown."""

    def __init__(self, relays: Sequence[str], model: str | None, system: str | None, options: dict[str, Any]) -> None:
        self._relays = relays
        self._model = model
        self._options = options
        self._opening = [{"role": "system", "content": system}] if system else []
        self._history: list[dict[str, Any]] = list(self._opening)
        self._screen = Console()
        self._aside = Console(stderr=True)
        self._shown_node = ""

    async def once(self, message: str) -> None:
        """Answer one message on stdout, everything else on stderr."""
        async with open_client(self._relays) as client:
            await self._settle_model(client)
            await self._answer(client, message)
        sys.stdout.write("\n")

    def talk(self) -> None:
        """Read, answer, again."""
        with asyncio.Runner() as runner:
            client = runner.run(self._open())
            try:
                self._screen.print(f"[dim]{self._model} · {_HELP}[/dim]", highlight=False)
                while (line := self._read()) is not None:
                    self._take(runner, client, line)
            finally:
                runner.run(client.aclose())

    async def _open(self) -> Client:
        client = open_client(self._relays)
        await self._settle_model(client)
        return client

    def _read(self) -> str | None:
        """A line of the person's; None at the end."""
        while True:
            try:
                line = input("\nyou › ").strip()
            except EOFError:
                return None
            except KeyboardInterrupt:
                self._screen.print("[dim]Ctrl-D ends.[/dim]")
                continue
            if line.lower() in _ENDS:
                return None
            if line:
                return line

    def _take(self, runner: asyncio.Runner, client: Client, line: str) -> None:
        match line.split():
            case ["/new"]:
                self._history = list(self._opening)
                self._screen.print("[dim]A new conversation.[/dim]")
            case ["/model", name]:
                self._model = name
            case [word, *_] if word.startswith("/"):
                self._screen.print(f"[dim]{_HELP}[/dim]", highlight=False)
            case _:
                try:
                    runner.run(self._stoppable(client, line))
                except TokenPlaceError as error:
                    self._aside.print(f"[red]{error.message}[/red]", highlight=False)

    async def _stoppable(self, client: Client, line: str) -> None:
        """One answer; Ctrl-C ends it and keeps the conversation."""
        task = asyncio.ensure_future(self._answer(client, line))
        loop = asyncio.get_running_loop()
        before = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(task.cancel))
        try:
            await task
        except asyncio.CancelledError:
            self._screen.print("\n[dim]stopped[/dim]")
        finally:
            signal.signal(signal.SIGINT, before)

    async def _settle_model(self, client: Client) -> None:
        """Without a choice, the model that most nodes serve."""
        if self._model is None:
            served = await client.models()
            if not served:
                raise NoNode(
                    "No node is connected to the relay right now; try again in a moment, or lend this machine: "
                    "tokenplace node."
                )
            self._model = max(served, key=lambda model: model.nodes).id

    async def _answer(self, client: Client, message: str) -> None:
        asked = [*self._history, {"role": "user", "content": message}]
        text: list[str] = []
        try:
            stream = client.stream(
                asked, model=self._model, on_news=self._hear, on_answer=self._show_node, **self._options
            )
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    for choice in chunk["choices"]:
                        piece = choice["delta"].get("content") or ""
                        text.append(piece)
                        sys.stdout.write(piece)
                        sys.stdout.flush()
        finally:
            if text:
                self._history = [*asked, {"role": "assistant", "content": "".join(text)}]
                if self._screen.is_terminal:
                    sys.stdout.write("\n")

    def _hear(self, news: News) -> None:
        if not self._aside.is_terminal:
            return
        match news.phase:
            case Phase.QUEUED if news.position:
                self._aside.print(f"[dim]waiting, place {news.position}[/dim]")
            case Phase.RETURNING:
                self._aside.print("[dim]the connection broke; coming back…[/dim]")
            case Phase.RETRYING:
                self._aside.print("[dim]the node was lost; asking another…[/dim]")

    def _show_node(self, answer: Answer) -> None:
        """Who answers, whenever that changes."""
        if self._aside.is_terminal and answer.node != self._shown_node:
            self._shown_node = answer.node
            self._aside.print(
                f"[dim]node {show_node_id(answer.node)} ({answer.standing}) via {answer.relay}[/dim]", highlight=False
            )

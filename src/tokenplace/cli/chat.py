"""`tokenplace chat`: a conversation in the terminal, or one question in a pipe; with the person's own tools, if any."""

from __future__ import annotations

import asyncio
import json
import re
import select
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tokenplace.cli.clients import open_client
from tokenplace.client.answer import Answer, News, Phase
from tokenplace.client.client import Client, error_of
from tokenplace.errors import TokenPlaceError
from tokenplace.wire.ids import show_node_id

if TYPE_CHECKING:  # the SDK is an extra
    from tokenplace.cli.toolbox import Local, Remote, Tool, Toolbox

MAX_ROUNDS = 8
"""How often in one answer the model may call tools; then it has to answer in words."""

_ENDS = frozenset({"exit", "quit", "bye", "/exit", "/quit"})
_HELP = "/new starts afresh, /model ID changes the model, /exit or Ctrl-D ends; Ctrl-C stops an answer."
_LEGAL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_STOPPED = "Not run: the person stopped it."


def run(
    *,
    relays: Sequence[str],
    model: str | None,
    message: str | None,
    system: str | None,
    options: Mapping[str, Any],
    mcp: Path | None = None,
    allowed: Sequence[str] = (),
) -> None:
    """Chat until the person ends it, or answer one message and end."""
    if allowed and mcp is None:
        raise TokenPlaceError("--allow-tool allows tools of MCP servers; name their file with --mcp.")
    servers: Mapping[str, Local | Remote] = {}
    if mcp is not None:
        from tokenplace.cli.toolbox import read_servers

        servers = read_servers(mcp)
    if message == "-":
        message = sys.stdin.read().strip()
    chat = _Chat(relays, model, system, dict(options), servers, allowed, ask=message is None)
    asyncio.run(chat.talk() if message is None else chat.once(message))


@dataclass
class Spoken:
    """What the model has said so far in one answer: words, and calls put together from their pieces."""

    text: str = ""
    calls: dict[int, dict[str, str]] = field(default_factory=dict)

    def take(self, delta: Mapping[str, Any]) -> str:
        """One more piece; gives its words."""
        for piece in delta.get("tool_calls") or ():
            call = self.calls.setdefault(piece.get("index", 0), {"id": "", "name": "", "arguments": ""})
            function = piece.get("function") or {}
            call["id"] = call["id"] or piece.get("id") or ""
            call["name"] = call["name"] or function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""
        words: str = delta.get("content") or ""
        self.text += words
        return words

    def asked(self) -> list[Call]:
        """The calls, each with an id of its own: results are told apart by it."""
        calls: list[Call] = []
        for raw in self.calls.values():
            known = {"", *(call.id for call in calls)}
            own = next(each for each in chain([raw["id"]], map("call_{}".format, count())) if each not in known)
            function = raw["name"] if _LEGAL.fullmatch(raw["name"]) else "unknown"
            calls.append(Call(own, function, _parsed(raw["arguments"])))
        return calls


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool. `arguments` is None where the model's text is no JSON object."""

    id: str
    name: str
    arguments: dict[str, Any] | None

    def shown(self) -> dict[str, Any]:
        """As it stands in the history; templates fail on arguments that are no JSON."""
        arguments = json.dumps(self.arguments or {}, ensure_ascii=False)
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


def _parsed(arguments: str) -> dict[str, Any] | None:
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def plain(text: str) -> str:
    """Text of a model or a server for the terminal: what could move the cursor or hide words is spelled out."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class _Chat:
    """A conversation: its history and how it is shown."""

    def __init__(
        self,
        relays: Sequence[str],
        model: str | None,
        system: str | None,
        options: dict[str, Any],
        servers: Mapping[str, Local | Remote],
        allowed: Sequence[str],
        *,
        ask: bool,
    ) -> None:
        self._relays = relays
        self._model = model
        self._options = options
        self._opening = [{"role": "system", "content": system}] if system else []
        self._history: list[dict[str, Any]] = list(self._opening)
        self._servers = servers
        self._allowed = set(allowed)
        self._ask = ask
        self._toolbox: Toolbox | None = None
        self._screen = Console()
        self._aside = Console(stderr=True)
        self._shown_node = ""

    async def once(self, message: str) -> None:
        """Answer one message on stdout, everything else on stderr."""
        async with self._opened() as client:
            await self._answer(client, message)
        sys.stdout.write("\n")

    async def talk(self) -> None:
        """Read, answer, again."""
        async with self._opened() as client:
            self._screen.print(f"[dim]{self._model} · {_HELP}[/dim]", highlight=False)
            while (line := self._read()) is not None:
                await self._take(client, line)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Client]:
        """A client whose model is settled, and the tools."""
        async with open_client(self._relays) as client:
            self._model = self._model or await client.any_model()
            if not self._servers:
                yield client
                return
            from tokenplace.cli.toolbox import open_toolbox

            async with open_toolbox(self._servers, self._tell_problem) as self._toolbox:
                self._tell_tools(self._toolbox)
                yield client

    def _tell_tools(self, toolbox: Toolbox) -> None:
        names = {name for tool in toolbox.tools for name in (tool.name, tool.full_name)}
        for name in sorted(self._allowed - names):
            self._tell_problem(f"No server offers a tool called {name}.")
        if self._aside.is_terminal:
            self._tell("tools: " + (", ".join(tool.full_name for tool in toolbox.tools) or "none"))

    def _read(self) -> str | None:
        """A line of the person's; None at the end."""
        while True:
            try:
                line = self._prompt("\nyou › ")
            except EOFError:
                return None
            except KeyboardInterrupt:
                self._screen.print("[dim]Ctrl-D ends.[/dim]")
                continue
            if line.lower() in _ENDS:
                return None
            if line:
                return line

    def _prompt(self, question: str) -> str:
        """A line from the keyboard; the loop stands still meanwhile. Raises EOFError, KeyboardInterrupt."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's would not wake us
        try:
            if sys.platform != "win32" and sys.stdin.isatty():
                sys.stdout.write(question)
                sys.stdout.flush()
                question = ""
                # A Ctrl-C that comes just before a read begins is noticed after it: so none may last.
                while not select.select([sys.stdin], [], [], 0.1)[0]:
                    pass
            return input(question).strip()
        finally:
            signal.signal(signal.SIGINT, before)

    async def _take(self, client: Client, line: str) -> None:
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
                    await self._stoppable(client, line)
                except TokenPlaceError as error:
                    self._tell_problem(error.message)

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

    async def _answer(self, client: Client, message: str) -> None:
        """Words, or calls of tools and then words. Whatever was said is kept, also when it is stopped halfway."""
        turn = [*self._history, {"role": "user", "content": message}]
        for left in range(MAX_ROUNDS, -1, -1):
            spoken = Spoken()
            try:
                await self._listen(client, turn, spoken, self._all_options(may_call=left > 0))
            finally:
                if spoken.text:
                    self._history = [*turn, {"role": "assistant", "content": spoken.text}]
                    if self._screen.is_terminal:
                        sys.stdout.write("\n")
            calls = spoken.asked() if left else []
            if not calls:
                return
            if spoken.text and not self._screen.is_terminal:
                sys.stdout.write("\n")
            said = {"role": "assistant", "content": spoken.text or None, "tool_calls": [call.shown() for call in calls]}
            results = dict.fromkeys((call.id for call in calls), _STOPPED)
            try:
                for call in calls:
                    results[call.id] = await self._run_tool(call)
            finally:
                answers = [{"role": "tool", "tool_call_id": id_, "content": text} for id_, text in results.items()]
                turn = self._history = [*turn, said, *answers]
            if left == 1:
                self._tell_problem(f"The model has called tools {MAX_ROUNDS} times; now it has to answer in words.")

    async def _listen(
        self, client: Client, turn: list[dict[str, Any]], spoken: Spoken, options: Mapping[str, Any]
    ) -> None:
        stream = client.stream(turn, model=self._model, on_news=self._hear, on_answer=self._show_node, **options)
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if "error" in chunk:
                    raise error_of(HTTPStatus.INTERNAL_SERVER_ERROR, json.dumps(chunk).encode())
                for choice in chunk["choices"]:
                    sys.stdout.write(spoken.take(choice["delta"]))
                    sys.stdout.flush()

    # -- tools -----------------------------------------------------------------------------------------------------

    def _all_options(self, *, may_call: bool) -> dict[str, Any]:
        tools = self._toolbox.tools if self._toolbox is not None else []
        if not tools:
            return self._options
        offered = [tool.function() for tool in tools]
        return {**self._options, "tools": offered, **({} if may_call else {"tool_choice": "none"})}

    async def _run_tool(self, call: Call) -> str:
        """What the model is to read as the result. Only what the person allows is run."""
        tool = self._toolbox.find(call.name) if self._toolbox is not None else None
        if self._toolbox is None or tool is None:
            return f"Error: there is no tool called {call.name!r}."
        if call.arguments is None:
            return "Error: the arguments are not a JSON object; the tool was not run."
        if not self._may_run(tool, call.arguments):
            return "Refused: the person has not allowed this tool to run. Answer without it."
        if self._aside.is_terminal:
            self._tell(f"{tool.full_name} runs…")
        result = await self._toolbox.call(tool, call.arguments)
        if result.problem:
            self._tell_problem(result.problem)
        return result.text

    def _may_run(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        """Allowed by name, or by the person just now. Raises CancelledError for Ctrl-C at the question."""
        if not self._allowed.isdisjoint((tool.name, tool.full_name)):
            return True
        if not self._ask:
            self._tell_problem(f"{tool.full_name} was not run: --allow-tool {tool.full_name} would let it.")
            return False
        shown = plain(f"{tool.full_name} {json.dumps(arguments, ensure_ascii=False)}")
        _forget_typed()
        while True:
            try:
                reply = self._prompt(f"\nrun {shown} ? y(es), n(o), a(lways) › ").lower()
            except EOFError:
                return False
            except KeyboardInterrupt:
                raise asyncio.CancelledError from None
            match reply:
                case "y" | "yes":
                    return True
                case "n" | "no":
                    return False
                case "a" | "always":
                    self._allowed.add(tool.full_name)
                    return True

    # -- what the person is told -----------------------------------------------------------------------------------

    def _tell(self, text: str, style: str = "dim") -> None:
        self._aside.print(plain(text), style=style, markup=False, highlight=False, soft_wrap=True)

    def _tell_problem(self, text: str) -> None:
        self._tell(text, "red")

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


def _forget_typed() -> None:
    """Drop what was typed before a question was asked: it cannot be the answer to it."""
    if sys.platform != "win32" and sys.stdin.isatty():
        import termios

        termios.tcflush(sys.stdin, termios.TCIFLUSH)

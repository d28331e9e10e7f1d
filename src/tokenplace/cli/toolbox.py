"""The person's own MCP servers: started here, their tools offered to a model as OpenAI's functions.

Each server lives in a task of its own, so that whatever breaks in one ends neither the chat nor the others. Nothing
here asks the person anything and nothing here speaks to a node: who may run what is the chat's to decide.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

import httpx2
import mcp_types
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokenplace.errors import TokenPlaceError
from tokenplace.openai.tools import MAX_TOOLS

START_TIMEOUT = 60.0
"""Seconds a server has to start and list its tools; `npx` may have to download it first."""

CALL_TIMEOUT = 300.0
"""Seconds one tool may take."""

MAX_RESULT = 8000
"""Characters of a result that the model gets: about half of a 4096-token context."""

_MAX_PAGES = 20
_NAME_LENGTH = 64
_HTTP_TIMEOUT = httpx2.Timeout(30.0, read=CALL_TIMEOUT)


class BadServers(TokenPlaceError):
    """The file of MCP servers cannot be used."""


class _Entry(BaseModel):
    """A server in the common file; fields that other programs keep there are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Local(_Entry):
    """A program on this machine that speaks MCP over its stdin and stdout."""

    command: str = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    """Besides these it gets PATH, HOME and the like, not our environment: that may hold keys."""
    cwd: Path | None = None


class Remote(_Entry):
    """A server that speaks MCP over streamable HTTP."""

    url: str = Field(pattern=r"^https?://")
    headers: dict[str, str] = Field(default_factory=dict, repr=False)


def read_servers(file: Path) -> dict[str, Local | Remote]:
    """The servers that a file in the common format names: `{"mcpServers": {NAME: …}}`. Raises BadServers."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise BadServers(f"{file} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise BadServers(f"{file} is not JSON: {error}.") from None
    servers = content.get("mcpServers") if isinstance(content, dict) else None
    if not isinstance(servers, dict):
        raise BadServers(
            f'{file} has no servers; it should look like {{"mcpServers": {{"name": {{"command": "…"}}}}}}.'
        )
    return {name: _entry(file, name, fields) for name, fields in servers.items()}


def _entry(file: Path, name: str, fields: Any) -> Local | Remote:
    where = f"{file}: mcpServers.{name}"
    if not isinstance(fields, dict) or ("command" in fields) == ("url" in fields):
        raise BadServers(f'{where} needs either a "command" or a "url".')
    if fields.get("type") == "sse":
        raise BadServers(f"{where} is of the older SSE transport; token.place speaks stdio and streamable HTTP.")
    try:
        return Local.model_validate(fields) if "command" in fields else Remote.model_validate(fields)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise BadServers(f"{where}.{path}: {problem['msg']}.") from None


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: what its server calls it, and the name under which a model may call it."""

    server: str
    name: str
    offered: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def full_name(self) -> str:
        """Server and tool, for the person."""
        return f"{self.server}/{self.name}"

    def function(self) -> dict[str, Any]:
        """As OpenAI's API offers it."""
        function = {"name": self.offered, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Result:
    """What the model reads; `problem` is for the person, where the server itself failed."""

    text: str
    problem: str = ""


class _Server:
    """One server, while its task lives."""

    def __init__(self, name: str, entry: Local | Remote) -> None:
        self.name = name
        self.tools: list[mcp_types.Tool] = []
        self.problem = ""
        self.started = asyncio.Event()
        self._entry = entry
        self._client: Client | None = None

    @property
    def running(self) -> bool:
        return self._client is not None

    async def live(self, stop: asyncio.Event) -> None:
        """Start, list the tools, stay until told to stop. Never raises: what went wrong is in `problem`."""
        with TemporaryFile("w+", encoding="utf-8", errors="replace") as noise:
            try:
                async with AsyncExitStack() as stack:
                    async with asyncio.timeout(START_TIMEOUT):
                        client = await self._connect(stack, noise)
                        self.tools = await _list_tools(client)
                    self._client = client
                    self.started.set()
                    await stop.wait()
            except Exception as error:  # noqa: BLE001 - a foreign program behind a foreign library: it may fail in any way
                self.problem = f"{self.name}: {_short(error)}{_last_words(noise)}"
            finally:
                self._client = None
                self.started.set()

    async def _connect(self, stack: AsyncExitStack, noise: TextIO) -> Client:
        match self._entry:
            case Local(command=command, args=args, env=env, cwd=cwd):
                parameters = StdioServerParameters(command=command, args=list(args), env=env, cwd=cwd)
                transport = stdio_client(parameters, errlog=noise)
            case Remote(url=url, headers=headers):
                http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=_HTTP_TIMEOUT))
                transport = streamable_http_client(url, http_client=http)
        return await stack.enter_async_context(Client(transport, read_timeout_seconds=CALL_TIMEOUT))

    async def call(self, tool: str, arguments: dict[str, Any]) -> Result:
        """Run one tool; cancelling tells the server."""
        if self._client is None:
            return Result("Error: the server of this tool is not running any more.")
        try:
            result = await self._client.call_tool(tool, arguments)
        except Exception as error:  # noqa: BLE001 - as above
            if isinstance(error, MCPError) and error.code == mcp_types.CONNECTION_CLOSED:
                self._client = None
                self.problem = f"{self.name} has ended; its tools are gone."
                return Result("Error: the server of this tool has crashed.", self.problem)
            return Result(_bounded(f"Error: {_short(error)}"), f"{self.name}/{tool}: {_short(error)}")
        return Result(_bounded(("Error: " if result.is_error else "") + _words(result)))


class Toolbox:
    """The tools of all servers that run."""

    def __init__(self, servers: Mapping[str, _Server]) -> None:
        self._servers = servers
        self._tools = {tool.offered: tool for tool in _named(servers)}

    @property
    def tools(self) -> list[Tool]:
        """What can be called now."""
        return [tool for tool in self._tools.values() if self._servers[tool.server].running][:MAX_TOOLS]

    def find(self, offered: str) -> Tool | None:
        """The tool that a model calls by this name."""
        return self._tools.get(offered)

    async def call(self, tool: Tool, arguments: dict[str, Any]) -> Result:
        """Run a tool on its server. Does not raise; cancelling ends it."""
        return await self._servers[tool.server].call(tool.name, arguments)


@asynccontextmanager
async def open_toolbox(entries: Mapping[str, Local | Remote], tell: Callable[[str], None]) -> AsyncIterator[Toolbox]:
    """Start servers, and end them with the block. `tell` gets a line for each that cannot be used."""
    logging.getLogger("mcp").addHandler(logging.NullHandler())  # the library's tracebacks are not for a chat's screen
    stop = asyncio.Event()
    servers = {name: _Server(name, entry) for name, entry in entries.items()}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(server.live(stop)) for server in servers.values()]
        try:
            for server in servers.values():
                await server.started.wait()
                if server.problem:
                    tell(f"{server.problem} Its tools are left out.")
            listed = sum(len(server.tools) for server in servers.values())
            if listed > MAX_TOOLS:
                tell(f"These servers have {listed} tools; only the first {MAX_TOOLS} are offered.")
            yield Toolbox(servers)
        finally:
            stop.set()
            if tasks:
                await asyncio.wait(tasks)


async def _list_tools(client: Client) -> list[mcp_types.Tool]:
    tools: list[mcp_types.Tool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tools


def _named(servers: Mapping[str, _Server]) -> Iterator[Tool]:
    """Tools under legal names, no two alike: the tool's own where only one has it, else with its server's before it."""
    shared = Counter(_legal(tool.name) for server in servers.values() for tool in server.tools)
    taken: set[str] = set()
    for server in servers.values():
        for tool in server.tools:
            offered = next(name for name in _names(server.name, tool.name, shared) if name not in taken)
            taken.add(offered)
            yield Tool(server.name, tool.name, offered, tool.description or tool.title or "", tool.input_schema)


def _names(server: str, tool: str, shared: Mapping[str, int]) -> Iterator[str]:
    if shared[_legal(tool)] == 1:
        yield _legal(tool)
    long = _legal(f"{server}_{tool}")
    yield long
    for number in count(2):
        yield f"{long[: _NAME_LENGTH - 5]}_{number}"


def _legal(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_NAME_LENGTH] or "tool"


def _words(result: mcp_types.CallToolResult) -> str:
    """A result as text; what is not text is named, not sent."""
    parts = [_part(block) for block in result.content]
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    return "\n".join(parts)


def _part(block: mcp_types.ContentBlock) -> str:
    match block:
        case mcp_types.TextContent(text=text):
            return text
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents(text=text)):
            return text
        case mcp_types.EmbeddedResource(resource=resource):
            return f"[{resource.uri}: not text, left out]"
        case mcp_types.ResourceLink(uri=uri):
            return f"[{uri}]"
        case mcp_types.ImageContent(mime_type=kind) | mcp_types.AudioContent(mime_type=kind):
            return f"[{kind}: not text, left out]"


def _bounded(text: str) -> str:
    if len(text) <= MAX_RESULT:
        return text
    return f"{text[:MAX_RESULT]}\n[cut here: {len(text) - MAX_RESULT} more characters]"


def _short(error: BaseException) -> str:
    """What went wrong, in a line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"no answer within {START_TIMEOUT:g} seconds."
    text = " ".join(str(error.message if isinstance(error, MCPError) else error).split())
    return f"{(text or type(error).__name__).rstrip('.')[:300]}."


def _last_words(noise: TextIO) -> str:
    """The last line that a server wrote to its stderr."""
    noise.seek(0)
    lines = [line.strip() for line in noise if line.strip()]
    return f" It said: {lines[-1][:300]}." if lines else ""

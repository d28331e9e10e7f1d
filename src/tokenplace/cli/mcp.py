"""`tokenplace mcp`: token.place as an MCP server, for any program that can call tools."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Sequence
from importlib.metadata import version
from socket import socket
from typing import Annotated, Any, TypeVar

import anyio
import typer
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field

from tokenplace.cli.clients import open_client
from tokenplace.client.client import Client
from tokenplace.errors import TokenPlaceError

_HOST = "127.0.0.1"
_ABOUT = (
    "Private answers from language models on volunteers' machines. Messages are sealed on this machine and opened only "
    "by the node that answers. Each call stands alone: put into it whatever the model has to know."
)

Value = TypeVar("Value")


class Answered(BaseModel):
    """An answer, which model gave it, and why it ended: `stop`, or `length` when it was cut."""

    text: str
    model: str
    finish_reason: str


class ServedModel(BaseModel):
    """A model that somebody serves now."""

    id: str
    nodes: int
    context_length: int | None
    capabilities: list[str]


def run(*, relays: Sequence[str], http_port: int | None) -> None:
    """Serve until the program that started it closes stdin, or, over HTTP, until Ctrl-C or SIGTERM."""
    if http_port is None:
        # stdin is read in a thread that nobody can wake, so Ctrl-C must end the process itself; the relay sees the
        # connection close and cancels.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        asyncio.run(_on_stdio(relays))
    else:
        _over_http(relays, http_port)


def create_server(client: Client) -> MCPServer[Any]:
    """The tools `chat` and `list_models`, asking with `client`."""
    server: MCPServer[Any] = MCPServer(
        "token.place", title="token.place", version=version("tokenplace"), instructions=_ABOUT, log_level="WARNING"
    )

    @server.tool(annotations=ToolAnnotations(title="Ask a private model", read_only_hint=True, open_world_hint=True))
    async def chat(
        message: Annotated[str, Field(min_length=1, description="What to ask.")],
        model: Annotated[
            str | None, Field(description="An id of list_models; without one, the model most nodes serve.")
        ] = None,
        system: Annotated[str | None, Field(description="What the model should know about its task.")] = None,
        temperature: Annotated[float | None, Field(ge=0, le=2, description="0 is sober, 2 is wild.")] = None,
        max_tokens: Annotated[int | None, Field(ge=1, description="The longest answer, in tokens.")] = None,
    ) -> Annotated[CallToolResult, Answered]:
        """Ask a language model that runs on a volunteer's machine; sealed end to end."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": message})
        options = {"temperature": temperature, "max_tokens": max_tokens}
        given = {name: value for name, value in options.items() if value is not None}
        completion = await _said(client.chat(messages, model=model, **given))
        choice = completion["choices"][0]
        text = choice["message"].get("content") or ""
        answered = Answered(text=text, model=completion["model"], finish_reason=choice["finish_reason"] or "stop")
        return CallToolResult(content=[TextContent(text=text)], structured_content=answered.model_dump())

    @server.tool(annotations=ToolAnnotations(title="Models served now", read_only_hint=True, open_world_hint=True))
    async def list_models() -> list[ServedModel]:
        """The models that volunteers serve right now, and on how many nodes."""
        return [
            ServedModel(
                id=served.id,
                nodes=served.nodes,
                context_length=served.card.context if served.card else None,
                capabilities=list(served.card.capabilities) if served.card else [],
            )
            for served in await _said(client.models())
        ]

    return server


async def _said(call: Coroutine[Any, Any, Value]) -> Value:
    """The answer of a call. Raises ToolError, which is what the calling model reads.

    A cancelled tool call takes its node along. The SDK cancels by an anyio scope, which breaks every later `await` as
    well; the call runs in a task of its own, so that it can still tell the relay.
    """
    task = asyncio.create_task(call)  # awaited below, whatever happens
    try:
        return await asyncio.shield(task)
    except TokenPlaceError as error:
        raise ToolError(error.message) from None
    finally:
        if not task.done():
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task])


async def _on_stdio(relays: Sequence[str]) -> None:
    async with open_client(relays) as client:
        await create_server(client).run_stdio_async()


def _over_http(relays: Sequence[str], port: int) -> None:
    from tokenplace.cli.running import configure_logs, run_loop
    from tokenplace.cli.serving import PortTaken, bind

    configure_logs("WARNING")
    try:
        listener = bind(_HOST, port)
    except PortTaken as taken:
        raise PortTaken(taken.message.replace("--port", "--http")) from None
    run_loop(_serve(listener, relays))


async def _serve(listener: socket, relays: Sequence[str]) -> None:
    from tokenplace.cli.running import stop_signal
    from tokenplace.cli.serving import address_of, serving

    with stop_signal() as stop:
        async with open_client(relays) as client:
            # A host of this machine only: the SDK then refuses names that a web page could have rebound to it.
            app = create_server(client).streamable_http_app(host=_HOST)
            async with serving(app, listener):
                typer.echo(f"MCP: {address_of(listener)}/mcp")
                await stop.wait()

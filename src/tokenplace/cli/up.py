"""`tokenplace up`: everything on one machine, one command, and a first sealed answer to show for it."""

from __future__ import annotations

import asyncio
import time
from socket import socket

import structlog
import typer

from tokenplace.cli.node import settings_with, working_node
from tokenplace.cli.relay import hosted_relay
from tokenplace.cli.running import configure_logs, run_loop, stop_signal
from tokenplace.cli.serving import address_of, bind
from tokenplace.client.client import Client
from tokenplace.errors import TokenPlaceError
from tokenplace.node.home import load_identity
from tokenplace.node.settings import NodeSettings
from tokenplace.relay.settings import RelaySettings
from tokenplace.sealing.identity import Identity
from tokenplace.wire.ids import NodeId, show_node_id

_QUESTION = "In one short sentence: why is it good to share?"
_DRAIN = 2.0
_log = structlog.get_logger("tokenplace.up")


def run(*, host: str, port: int, engine: str | None, model: str | None, stand_in: bool) -> None:
    """Serve until Ctrl-C or SIGTERM; then nothing of it runs any more."""
    relay = RelaySettings()
    configure_logs("WARNING")
    node = settings_with(engine=engine, model=model, stand_in=stand_in or None)
    identity = load_identity(node.home)
    listener = bind(host, port, or_next=True)
    run_loop(_serve(listener, relay, node, identity))


async def _serve(listener: socket, relay_settings: RelaySettings, settings: NodeSettings, identity: Identity) -> None:
    address = address_of(listener)
    with stop_signal() as stop:
        async with hosted_relay(listener, relay_settings, hosting=True, stand_in=settings.stand_in) as relay:
            typer.echo("Starting the model …")
            async with working_node(identity, settings, [address], stop) as node, asyncio.TaskGroup() as group:
                showing = group.create_task(_show(address, node.card.node))
                await stop.wait()
                showing.cancel()
                typer.echo("\nStopping …")
                await node.drain(_DRAIN)
            relay.broker.drain()


async def _show(address: str, node: NodeId) -> None:
    """Ask the first question the way anybody would: over HTTP, sealed, through the relay."""
    async with Client([address]) as client:
        try:
            await _first_answer(client, node)
        except TokenPlaceError as error:
            typer.echo(f"\n\n  The first question was not answered: {error.message}")
    typer.echo(
        f"\n  chat in the browser    {address}\n"
        f"  chat in the terminal   tokenplace chat --relay {address}\n"
        f"  any OpenAI program     base URL {address}/v2  (streams)  or  {address}/v1\n"
        f"  health                 {address}/healthz\n\n"
        f"Ready at {address} . Ctrl-C stops everything."
    )


async def _first_answer(client: Client, node: NodeId) -> None:
    while not (served := await client.models()):  # noqa: ASYNC110 - the node is on its way
        await asyncio.sleep(0.05)
    model = served[0].id
    began = time.monotonic()
    typer.echo(f"\n  you   › {_QUESTION}\n  node  › ", nl=False)
    async for chunk in client.stream([{"role": "user", "content": _QUESTION}], model=model, max_tokens=60):
        for choice in chunk["choices"]:
            typer.echo((choice["delta"].get("content") or "").replace("\n", " "), nl=False)
    took = time.monotonic() - began
    typer.echo(f"\n\n  sealed here, opened only by node {show_node_id(node)[:19]}… ({took:.1f} s, {model})")

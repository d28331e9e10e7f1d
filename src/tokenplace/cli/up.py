"""`tokenplace up`: everything on one machine, one command, and a first sealed answer to show for it."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from socket import socket

import structlog
import typer
from pydantic import SecretStr

from tokenplace.cli.node import settings_with, working_node
from tokenplace.cli.relay import hosted_relay, read_settings
from tokenplace.cli.running import configure_logs, run_loop, stop_signal
from tokenplace.cli.serving import address_of, bind
from tokenplace.client.client import Client
from tokenplace.errors import TokenPlaceError
from tokenplace.node.home import load_identity
from tokenplace.node.settings import NodeSettings
from tokenplace.relay.invitations import InvitationFile
from tokenplace.relay.settings import RelaySettings
from tokenplace.sealing.identity import Identity
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import NodeId, show_node_id

_QUESTION = "In one short sentence: why is it good to share?"
_DRAIN = 2.0
_log = structlog.get_logger("tokenplace.up")


def run(
    *, host: str, port: int, engine: str | None, model: str | None, stand_in: bool, store: str | None = None
) -> None:
    """Serve until Ctrl-C or SIGTERM; then nothing of it runs any more."""
    relay, _ = read_settings(store)
    configure_logs("WARNING")
    node = settings_with(engine=engine, model=model, stand_in=stand_in or None)
    if node.token is None and (relay.tokens or InvitationFile(relay.invitation_file).read()):
        relay.server_token = node.token = SecretStr(secrets.token_urlsafe())  # its own relay asks for an invitation
    identity = load_identity(node.home)
    listener = bind(host, port, or_next=True)
    run_loop(_serve(listener, relay, node, identity))


async def _serve(listener: socket, relay_settings: RelaySettings, settings: NodeSettings, identity: Identity) -> None:
    address = address_of(listener)
    with stop_signal() as stop:
        async with hosted_relay(listener, relay_settings, hosting=True, stand_in=settings.stand_in, own=True) as relay:
            typer.echo("Starting the model …")
            async with working_node(identity, settings, [address], stop) as node, asyncio.TaskGroup() as group:
                showing = group.create_task(_show(address, node.card.body.models))
                await stop.wait()
                showing.cancel()
                typer.echo("\nStopping …")
                await node.drain(_DRAIN)
            relay.broker.drain()


async def _show(address: str, models: Sequence[ModelCard]) -> None:
    """Ask the first question the way anybody would: over HTTP, sealed, through the relay."""
    async with Client([address]) as client:
        try:
            await _first_answer(client, next((model for model in models if "chat" in model.capabilities), models[0]))
        except TokenPlaceError as error:
            typer.echo(f"\n\n  The first question was not answered: {error.message}")
    typer.echo(
        f"\n  chat in the browser    {address}\n"
        f"  chat in the terminal   {_command()} chat --relay {address}\n"
        f"  any OpenAI program     base URL {address}/v2  (streams)  or  {address}/v1\n"
        f"  health                 {address}/healthz\n\n"
        f"Ready at {address} . Ctrl-C stops everything."
    )


async def _first_answer(client: Client, model: ModelCard) -> None:
    while not await client.models():  # noqa: ASYNC110 - the node is on its way
        await asyncio.sleep(0.05)
    answered: list[NodeId] = []
    began = time.monotonic()
    typer.echo(f"\n  you   › {_QUESTION}\n  node  › ", nl=False)
    question = [{"role": "user", "content": _QUESTION}]
    stream = client.stream(
        question, model=model.id, max_tokens=60, on_answer=lambda answer: answered.append(answer.node)
    )
    async for chunk in stream:
        for choice in chunk["choices"]:
            typer.echo((choice["delta"].get("content") or "").replace("\n", " "), nl=False)
    took = time.monotonic() - began
    typer.echo(f"\n\n  sealed here, opened only by node {show_node_id(answered[0])[:19]}… ({took:.1f} s, {model.id})")


def _command() -> str:
    """How this program is called from here: by its name, or by its path where the shell does not know it."""
    here = Path(sys.argv[0])
    return "tokenplace" if shutil.which("tokenplace") or here.name != "tokenplace" else str(here)

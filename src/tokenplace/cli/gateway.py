"""`tokenplace gateway`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import aclosing
from socket import socket

import typer

from tokenplace.cli.clients import open_client
from tokenplace.cli.own_name import OwnName
from tokenplace.cli.running import configure_logs, run_loop, stop_signal
from tokenplace.cli.serving import address_of, bind, serving
from tokenplace.client.settings import ClientSettings
from tokenplace.gateway.app import create_gateway
from tokenplace.gateway.passage import Passage
from tokenplace.gateway.settings import GatewaySettings
from tokenplace.web.page import create_page


def run(*, relays: Sequence[str], host: str, port: int) -> None:
    """Serve OpenAI's API on this machine until Ctrl-C or SIGTERM."""
    settings = GatewaySettings()
    configure_logs(settings.log_level)
    listener = bind(host, port)
    run_loop(_serve(listener, relays, settings))


async def _serve(listener: socket, relays: Sequence[str], settings: GatewaySettings) -> None:
    chosen = ClientSettings.read(os.environ, relays)
    with stop_signal() as stop:
        async with open_client(relays) as client:
            api = create_gateway(
                client,
                hosted=False,
                service=settings.service_name,
                api_keys=settings.api_keys,
                phrases=settings.phrases,
                stand_in=settings.stand_in,
                operator=settings.operator,
            )
            passage = Passage(chosen.relays, otherwise=api)
            app = create_page(otherwise=passage)
            guarded = app if settings.api_keys else OwnName(app, settings.names)
            async with aclosing(passage), serving(guarded, listener):
                address = address_of(listener)
                typer.echo(f"OpenAI API: {address}/v1 (JSON), {address}/v2 (JSON and streams); chat page: {address}")
                await stop.wait()

"""`tokenplace gateway`."""

from __future__ import annotations

from collections.abc import Sequence
from socket import socket

import typer

from tokenplace.cli.clients import open_client
from tokenplace.cli.running import configure_logs, run_loop, stop_signal
from tokenplace.cli.serving import address_of, bind, serving
from tokenplace.gateway.app import create_gateway
from tokenplace.gateway.settings import GatewaySettings


def run(*, relays: Sequence[str], host: str, port: int) -> None:
    """Serve OpenAI's API on this machine until Ctrl-C or SIGTERM."""
    settings = GatewaySettings()
    configure_logs(settings.log_level)
    listener = bind(host, port)
    run_loop(_serve(listener, relays, settings))


async def _serve(listener: socket, relays: Sequence[str], settings: GatewaySettings) -> None:
    with stop_signal() as stop:
        async with open_client(relays) as client:
            app = create_gateway(
                client,
                hosted=False,
                service=settings.service_name,
                api_keys=settings.api_keys,
                phrases=settings.phrases,
                stand_in=settings.stand_in,
            )
            async with serving(app, listener):
                typer.echo(
                    f"OpenAI API: {address_of(listener)}/v1 (JSON), {address_of(listener)}/v2 (JSON and streams)"
                )
                await stop.wait()

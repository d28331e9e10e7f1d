"""`tokenplace relay`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from importlib.util import find_spec
from socket import socket

import structlog
from pydantic import ValidationError

from tokenplace.cli.running import configure_logs, run_loop, stop_signal
from tokenplace.cli.serving import address_of, bind, serving
from tokenplace.relay.app import Relay, nothing_here
from tokenplace.relay.asgi import App
from tokenplace.relay.broker import Broker
from tokenplace.relay.proof import verify
from tokenplace.relay.settings import RelaySettings
from tokenplace.web.page import create_page
from tokenplace.wire.limits import TIMING

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_log = structlog.get_logger("tokenplace.relay")


def run(*, host: str, port: int, blind: bool, names: Sequence[str]) -> None:
    """Serve until Ctrl-C or SIGTERM, then let open answers end."""
    settings, complaint = read_settings()
    configure_logs(settings.log_level)
    if complaint:
        _log.warning("relay.setting_ignored", reason=complaint)
    listener = bind(settings.host or host, settings.port if settings.port is not None else port)
    hosting = not blind and find_spec("fastapi") is not None
    if not (blind or hosting):
        _log.warning(
            "relay.blind",
            reason="no gateway is hosted; in a clone, pip install '.[gateway]' brings it",
        )
    run_loop(_serve(listener, settings, hosting=hosting, names=names))


def read_settings() -> tuple[RelaySettings, str | None]:
    """The settings; a RELAY_PORT that is no port falls back to the flag, as it always did."""
    try:
        return RelaySettings(), None
    except ValidationError as error:
        if [problem["loc"] for problem in error.errors()] != [("RELAY_PORT",)]:
            raise
        return RelaySettings(RELAY_PORT=None), "RELAY_PORT is not a port; the flag is used"


async def _serve(listener: socket, settings: RelaySettings, *, hosting: bool, names: Sequence[str]) -> None:
    with stop_signal() as stop:
        async with hosted_relay(listener, settings, hosting=hosting, names=names) as relay:
            _log.info("relay.startup", address=address_of(listener), gateway=hosting)
            if not (names or settings.names or listener.getsockname()[0] in _LOOPBACK):
                _log.warning("relay.no_name", advice="name the host that nodes dial with --name")
            await stop.wait()
            await relay.drain()


@asynccontextmanager
async def hosted_relay(
    listener: socket, settings: RelaySettings, *, hosting: bool, names: Sequence[str] = (), stand_in: bool = False
) -> AsyncIterator[Relay]:
    """A relay with its page that serves while the block runs, with a gateway in the same process when `hosting`."""
    broker = Broker(timing=replace(TIMING, drain=settings.drain_seconds))
    async with AsyncExitStack() as stack:
        api, counted = await _gateway(broker, stack, stand_in=stand_in) if hosting else (nothing_here, bytes)
        guest = create_page(otherwise=api)
        relay = Relay(
            broker, verify, names=[*settings.names, *names], tokens=settings.tokens, guest=guest, counts=counted
        )
        await stack.enter_async_context(serving(relay, listener))
        yield relay


async def _gateway(broker: Broker, stack: AsyncExitStack, *, stand_in: bool) -> tuple[App, Callable[[], bytes]]:
    """The gateway beside the relay; imported only here, so that a blind relay never meets a key."""
    from tokenplace.cli.hosted import LocalDoor
    from tokenplace.client.client import Client
    from tokenplace.gateway.app import create_gateway
    from tokenplace.gateway.counts import Counts
    from tokenplace.gateway.settings import GatewaySettings

    client = await stack.enter_async_context(Client([LocalDoor(broker)]))
    settings = GatewaySettings()
    counts = Counts()
    api = create_gateway(
        client,
        hosted=True,
        service=settings.service_name,
        api_keys=settings.api_keys,
        phrases=settings.phrases,
        stand_in=stand_in or settings.stand_in,
        counts=counts,
    )
    return api, counts.render

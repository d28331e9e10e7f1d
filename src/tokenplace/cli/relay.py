"""`tokenplace relay`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from socket import socket

import structlog
from pydantic import SecretStr, ValidationError

from tokenplace.cli.crowd import on_this_machine
from tokenplace.cli.noticeboard import noticeboard
from tokenplace.cli.own_name import OwnName
from tokenplace.cli.policy import policy_of
from tokenplace.cli.running import configure_logs, run_loop, settle, stop_signal
from tokenplace.cli.serving import address_of, bind, serving
from tokenplace.errors import TokenPlaceError
from tokenplace.relay.address import Client, TrustedProxies
from tokenplace.relay.admission import SHORT_TOKEN
from tokenplace.relay.app import Relay, nothing_here
from tokenplace.relay.asgi import App
from tokenplace.relay.broker import Broker
from tokenplace.relay.limits import SharedCounts
from tokenplace.relay.policy import nobody
from tokenplace.relay.proof import verify
from tokenplace.relay.replicas.courier import Courier
from tokenplace.relay.replicas.peering import Peering
from tokenplace.relay.settings import RelaySettings
from tokenplace.relay.switchboard import Switchboard
from tokenplace.version import build_digest, version
from tokenplace.web.page import create_page
from tokenplace.wire.limits import TIMING

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_log = structlog.get_logger("tokenplace.relay")


def run(*, host: str, port: int, blind: bool, names: Sequence[str], store: str | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM, then let open answers end."""
    settings, complaint = read_settings(store)
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


def read_settings(store: str | None = None) -> tuple[RelaySettings, str | None]:
    """The settings; a RELAY_PORT that is no port falls back to the flag, as it always did. The store's flag wins."""
    complaint = None
    try:
        settings = RelaySettings()
    except ValidationError as error:
        if [problem["loc"] for problem in error.errors()] != [("RELAY_PORT",)]:
            raise
        settings, complaint = RelaySettings(RELAY_PORT=None), "RELAY_PORT is not a port; the flag is used"
    if store:
        settings.store_url = SecretStr(store)
    return settings, complaint


async def _serve(listener: socket, settings: RelaySettings, *, hosting: bool, names: Sequence[str]) -> None:
    with stop_signal() as stop:
        async with hosted_relay(listener, settings, hosting=hosting, names=names) as relay:
            settle()
            _log.info("relay.startup", address=address_of(listener), gateway=hosting)
            if not (names or settings.names or listener.getsockname()[0] in _LOOPBACK):
                _log.warning("relay.no_name", advice="name the host that nodes dial with --name")
            stop.reread = relay.reread
            await stop.wait()
            await relay.drain()


@asynccontextmanager
async def hosted_relay(
    listener: socket,
    settings: RelaySettings,
    *,
    hosting: bool,
    names: Sequence[str] = (),
    stand_in: bool = False,
    own: bool = False,
) -> AsyncIterator[Relay]:
    """A relay with its page that serves while the block runs, with a gateway in the same process when `hosting`.

    `own` says that it is there for this machine, and not for pages that a browser here happens to show.
    """
    broker = Broker(timing=replace(TIMING, drain=settings.drain_seconds))
    board, courier = _joined(broker, settings)
    async with AsyncExitStack() as stack:
        called = [*settings.names, *names]
        if hosting:
            hosted = await _gateway(board, stack, names=called, stand_in=stand_in)
        else:
            hosted = _Hosted(*noticeboard(nothing_here, broker.roster, names=called))
        shared = None
        if settings.store_url is not None and (store := settings.store_url.get_secret_value()):
            shared = SharedCounts.at(store)
            stack.push_async_callback(shared.aclose)
        policy = policy_of(settings, holder=hosted.holder, shared=shared)
        relay = Relay(
            broker,
            verify,
            names=called,
            tokens=settings.tokens,
            guest=create_page(otherwise=hosted.app),
            counts=hosted.counts,
            about={"version": version(), "build": build_digest()},
            policy=policy,
            board=board,
            courier=courier,
        )
        _warn_of(settings)
        app = OwnName(relay, called) if own else relay
        spared = partial(_spared, policy.proxies)
        await stack.enter_async_context(serving(app, listener, spared=spared))
        yield relay


def _warn_of(settings: RelaySettings) -> None:
    """Say what is allowed and probably not meant: a named file that is not there, a token that can be guessed."""
    for setting, path in (("TOKEN_PLACE_DENY", settings.denied), ("TOKEN_PLACE_INVITATIONS", settings.invitations)):
        if path is not None and not path.exists():
            _log.warning("relay.file_missing", setting=setting, advice="it is read as soon as it is there")
    if settings.operator is not None and len(settings.operator) < SHORT_TOKEN:
        _log.warning("relay.token_short", setting="TOKEN_PLACE_OPERATOR_TOKEN", advice="make one: openssl rand -hex 32")


def _spared(proxies: TrustedProxies, client: Client) -> bool:
    """Who may have all connections: this machine, and the proxies through which everybody comes."""
    return on_this_machine(client) or proxies.are(client)


def _joined(broker: Broker, settings: RelaySettings) -> tuple[Switchboard, Courier | None]:
    """The way to the nodes, with those of the other replicas where a store is named. Raises BadStore."""
    if settings.store_url is None or not (url := settings.store_url.get_secret_value()):
        return Switchboard(broker, time.monotonic), None
    if find_spec("valkey") is None:
        raise TokenPlaceError("A store needs Valkey's client library; in a clone, pip install '.[valkey]' brings it.")
    from tokenplace.relay.bus.valkey import ValkeyBus

    peering = Peering(broker)
    return Switchboard(broker, time.monotonic, peering), Courier(ValkeyBus(url), peering, time.monotonic)


@dataclass(frozen=True, slots=True)
class _Hosted:
    """What a relay hosts beside itself: an application, what it counts, and whose API keys it knows."""

    app: App
    counts: Callable[[], bytes]
    holder: Callable[[str], str | None] = nobody


async def _gateway(board: Switchboard, stack: AsyncExitStack, *, names: Sequence[str], stand_in: bool) -> _Hosted:
    """The gateway beside the relay, behind the notice board; imported only here: a blind relay never meets a key."""
    from tokenplace.cli.hosted import LocalDoor
    from tokenplace.client.client import Client
    from tokenplace.gateway.app import create_gateway
    from tokenplace.gateway.counts import Counts
    from tokenplace.gateway.keys import ApiKeys
    from tokenplace.gateway.settings import GatewaySettings
    from tokenplace.openai.catalogue import Catalogue
    from tokenplace.openai.screening import PhraseScreen

    client = await stack.enter_async_context(Client([LocalDoor(board)]))
    settings = GatewaySettings()
    catalogue = Catalogue.load()
    counts = Counts()
    keys = ApiKeys(settings.api_keys)
    api = create_gateway(
        client,
        catalogue=catalogue,
        hosted=True,
        service=settings.service_name,
        api_keys=settings.api_keys,
        phrases=settings.phrases,
        stand_in=stand_in or settings.stand_in,
        counts=counts,
        operator=settings.operator,
        memory=board.broker,
    )
    app, noted = noticeboard(
        api,
        board.broker.roster,
        names=names,
        screen=PhraseScreen(settings.phrases),
        canonical=catalogue.canonical,
        listed=catalogue.entries,
        holder=keys.holder,
    )
    return _Hosted(app, lambda: counts.render() + noted(), keys.holder)

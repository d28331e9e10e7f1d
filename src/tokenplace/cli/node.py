"""`tokenplace node`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from tokenplace.cli.live import showing
from tokenplace.cli.models import progress_bar
from tokenplace.cli.nearby import status_page
from tokenplace.cli.offers import with_offers
from tokenplace.cli.pausing import pausing
from tokenplace.cli.running import Stop, configure_logs, run_loop, stop_signal
from tokenplace.errors import TokenPlaceError, WeightsError
from tokenplace.locks import Busy, locked
from tokenplace.node.api import NodeApi
from tokenplace.node.build import make_classic, make_engine
from tokenplace.node.engines.base import Engine
from tokenplace.node.home import CardNumbers, load_identity
from tokenplace.node.service import NodeService
from tokenplace.node.settings import NodeSettings
from tokenplace.sealing.identity import Identity

_DRAIN = 30.0
_log = structlog.get_logger("tokenplace.node")


def run(*, relays: Sequence[str], flags: Mapping[str, object], as_json: bool) -> None:
    """Serve until Ctrl-C or SIGTERM, then let running answers end."""
    settings = with_offers(settings_with(**flags))
    configure_logs(settings.log_level, for_programs=as_json)
    targets = settings.targets(relays)
    identity = load_identity(settings.home)
    run_loop(_serve(identity, settings, targets, as_json=as_json))


def settings_with(**flags: object) -> NodeSettings:
    """The environment's settings with the flags that were given on top."""
    return NodeSettings().model_copy(update={name: value for name, value in flags.items() if value is not None})


async def _serve(identity: Identity, settings: NodeSettings, relays: Sequence[str], *, as_json: bool) -> None:
    with stop_signal() as stop:
        async with (
            working_node(identity, settings, relays, stop) as node,
            pausing(node, settings),
            status_page(node, settings) as page,
            showing(page, as_json=as_json) as shown,
        ):
            await stop.wait()
            _log.info("node.draining", running=node.runs.busy)
            shown.stopping()
            await node.drain(_DRAIN)


@asynccontextmanager
async def working_node(
    identity: Identity, settings: NodeSettings, relays: Sequence[str], stop: Stop
) -> AsyncIterator[NodeService]:
    """A node with a warm engine, at its relays while the block runs. Raises EngineError, WeightsError, TwiceHere."""
    async with AsyncExitStack() as stack:
        stack.enter_context(alone(settings.home))
        with stop.warming():
            engine, api = await _made(settings)
            stack.push_async_callback(engine.stop)
            await engine.start()
        token = settings.token.get_secret_value() if settings.token else None
        classic = make_classic(settings, engine, api)
        node = NodeService(
            identity=identity,
            engine=engine,
            api=api,
            relays=relays,
            token=token,
            classic=classic,
            numbers=CardNumbers(settings.home),
        )
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(node.run())
            yield node
            serving.cancel()


class TwiceHere(TokenPlaceError):
    """A node with this identity runs on this machine already; give a second one a folder of its own."""

    code = "node_runs_already"


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Be the only node whose identity lies in `home`: two would take each other's place at their relays, in turns.

    Raises TwiceHere. A folder that cannot be written to keeps nobody from serving.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(home / "node.lock", 0.0))
        except Busy:
            raise TwiceHere(
                f"A node with the identity in {home} runs on this machine already. For a second node, give it a folder "
                "of its own: TOKEN_PLACE_STATE_DIR=…"
            ) from None
        except OSError as error:
            _log.warning("node.lock_not_taken", reason=type(error).__name__)
        yield


async def _made(settings: NodeSettings) -> tuple[Engine, NodeApi]:
    """The engine; weights that are missing are fetched in a thread, which ends when we do not want them any more."""
    unwanted = threading.Event()
    with progress_bar(settings.model or "model") as tell:

        def told(done: int, total: int | None) -> None:
            if unwanted.is_set():
                raise WeightsError("The download was stopped; it goes on where it was next time.")
            tell(done, total)

        try:
            return await asyncio.to_thread(make_engine, settings, told)
        finally:
            unwanted.set()

"""A node at work: one outgoing link to every relay, one engine, and the runs between them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from tokenplace.errors import LinkError, WireError
from tokenplace.link.ends import NodeEnd
from tokenplace.link.events import (
    Cancelled,
    Challenged,
    Drained,
    Granted,
    NodeEvent,
    Offered,
    Rewound,
    Welcomed,
)
from tokenplace.node.api import NodeApi
from tokenplace.node.engines.base import Engine
from tokenplace.node.runs import Run, Runs
from tokenplace.node.worker import Worker
from tokenplace.sealing.exchange import open_request
from tokenplace.sealing.identity import Identity
from tokenplace.sealing.keys import KeyRing
from tokenplace.sealing.replay import ReplayGuard
from tokenplace.wire import routes
from tokenplace.wire.address import relay_address
from tokenplace.wire.card import Card, CardBody
from tokenplace.wire.ids import JobId
from tokenplace.wire.limits import MAX_MESSAGE, TIMING, Timing
from tokenplace.wire.messages import Hello, Outcome, Status

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_SUPERSEDED, _NOT_ADMITTED = 4001, 4003
_TICK = 0.5
_log = structlog.get_logger("tokenplace.node")


class LinkStep(StrEnum):
    """How it stands with one relay."""

    DIALLING = "dialling"
    CONNECTED = "connected"
    WAITING = "waiting"
    """It failed; it is tried again."""


@dataclass(slots=True)
class RelayState:
    """One relay as the node sees it."""

    url: str
    step: LinkStep = LinkStep.DIALLING
    detail: str = ""


@dataclass(slots=True)
class NodeState:
    """What a person may see of the node. Counts only."""

    relays: list[RelayState]
    jobs: int = 0
    aborted: int = 0
    tokens: int = 0

    @property
    def connected(self) -> int:
        """How many relays take this node."""
        return sum(relay.step is LinkStep.CONNECTED for relay in self.relays)


def link_url(relay: str) -> tuple[str, str]:
    """The WebSocket address of a relay's base URL, and the authority that the node signs. Raises WireError."""
    parts = relay_address(relay)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    default = 443 if secure else 80
    authority = host if (parts.port or default) == default else f"{host}:{parts.port}"
    return f"{'wss' if secure else 'ws'}://{authority}{parts.path}{routes.LINK}", authority


class NodeService:
    """Serves jobs until `run` is cancelled. Sealing keys live in memory only: a restart makes new ones."""

    def __init__(
        self,
        *,
        identity: Identity,
        engine: Engine,
        api: NodeApi,
        relays: Sequence[str],
        token: str | None = None,
        timing: Timing = TIMING,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._identity = identity
        self.engine = engine
        self._token = token
        self._timing = timing
        self._clock = clock
        self._wall_ms = wall_ms
        self._keys = KeyRing.generate(now_ms=wall_ms())
        self._replays = ReplayGuard(timing)
        self._links: set[NodeEnd] = set()
        self._tasks: dict[JobId, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self.state = NodeState([RelayState(relay_address(url).geturl()) for url in dict.fromkeys(relays)])
        self.runs = Runs(slots=engine.slots, timing=timing, start=self._start, stop=self._stop)
        self._worker = Worker(api, self.runs, clock, self._answered)
        self._sequence = 0
        self._card = self._make_card()

    @property
    def card(self) -> Card:
        """What clients see of this node now."""
        return self._card

    async def run(self) -> None:
        """Dial every relay and answer what comes. The engine must be warm: a node is not offered before."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for relay in self.state.relays:
                    group.create_task(self._stay(relay))
                group.create_task(self._tick())
                group.create_task(self._follow_engine())
        finally:
            self.runs.stop_all()
            self._group = None

    async def drain(self, patience: float) -> None:
        """Take no new jobs, tell the relays, and wait for the running answers, at most `patience` seconds."""
        self.runs.draining = True
        for end in self._links:
            end.drain()
        deadline = self._clock() + patience
        while (self.runs.busy or self.runs.unsent) and self._clock() < deadline:  # noqa: ASYNC110 - runs have no events
            await asyncio.sleep(0.05)

    def rotate_keys(self) -> None:
        """A fresh sealing key from now on, told to every relay; requests in flight still open."""
        self._keys.rotate(self._wall_ms())
        self._announce()

    # -- jobs ------------------------------------------------------------------------------------------------------

    def _start(self, run: Run, sealed: bytes) -> None:
        if self._group is None:
            raise WireError("The node is not running.")
        now_ms = self._wall_ms()
        opened = open_request(sealed, self._keys, now_ms=now_ms)
        self._replays.admit(opened.header, now_ms)
        task = self._group.create_task(self._worker.answer(run, opened))
        self._tasks[run.job] = task
        task.add_done_callback(lambda _: self._worked(run))

    def _stop(self, run: Run) -> None:
        task = self._tasks.get(run.job)
        if task is not None:
            task.cancel()

    def _worked(self, run: Run) -> None:
        """A worker's task is over, also one that was cancelled before it began."""
        self._tasks.pop(run.job, None)
        self.runs.release(run)

    def _answered(self, outcome: Outcome, tokens: int) -> None:
        self.state.jobs += 1
        self.state.aborted += outcome is Outcome.ABORTED
        self.state.tokens += tokens

    # -- links -----------------------------------------------------------------------------------------------------

    async def _stay(self, relay: RelayState) -> None:
        """Keep one relay, with pauses that grow while it will not have us."""
        pause = _FIRST_PAUSE
        url, authority = link_url(relay.url)
        while True:
            began = self._clock()
            self._note(relay, LinkStep.DIALLING)
            least = 0.0
            try:
                async with connect(
                    url, compression=None, max_size=MAX_MESSAGE, ping_interval=None, close_timeout=1, open_timeout=10
                ) as socket:
                    await self._speak(relay, socket, authority)
                detail = "the relay closed the link"
            except ConnectionClosed as closed:
                detail = closed.rcvd.reason if closed.rcvd and closed.rcvd.reason else "the connection broke"
                code = closed.rcvd.code if closed.rcvd else 0
                if code == _SUPERSEDED:
                    detail = "another machine serves under this node's identity; stop one of the two"
                    least = 60.0
                elif code == _NOT_ADMITTED:
                    least = 15.0
            except (InvalidHandshake, InvalidURI) as error:
                detail = f"no relay answers there ({error})"
            except (OSError, TimeoutError) as error:
                detail = f"cannot be reached ({type(error).__name__})"
            except LinkError as error:
                detail = error.message
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError  # a TaskGroup whose child fails in that very moment forgets it
            if self._clock() - began > 10.0:
                pause = _FIRST_PAUSE
            self._note(relay, LinkStep.WAITING, detail)
            await asyncio.sleep(max(least, pause) * random.uniform(0.7, 1.3))  # noqa: S311 - spreads the herd
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _speak(self, relay: RelayState, socket: ClientConnection, authority: str) -> None:
        output = asyncio.Event()
        end = NodeEnd(output.set)
        end.last_heard = self._clock()
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(end, output, socket))
                watch = group.create_task(self._watch(end))
                async for message in socket:
                    if isinstance(message, str):
                        raise LinkError("The link speaks binary messages.")
                    now = self._clock()
                    for event in end.receive(message, now):
                        self._handle(relay, end, event, authority, now)
                writer.cancel()
                watch.cancel()
        except* (ConnectionClosed, LinkError) as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self._links.discard(end)
            self.runs.link_lost(end, self._clock())

    async def _write(self, end: NodeEnd, output: asyncio.Event, socket: ClientConnection) -> None:
        while True:
            await output.wait()
            output.clear()
            while message := end.take():
                await socket.send(message)

    async def _watch(self, end: NodeEnd) -> None:
        """A relay that went silent is gone, whatever TCP believes (a suspended machine, a lost route)."""
        while True:
            await asyncio.sleep(_TICK)
            now = self._clock()
            if now - end.last_heard >= self._timing.silence:
                raise LinkError("The relay went silent.")
            if end in self._links and now - max(end.last_heard, end.last_pinged) >= self._timing.heartbeat:
                end.ping(now)

    def _handle(self, relay: RelayState, end: NodeEnd, event: NodeEvent, authority: str, now: float) -> None:
        match event:
            case Challenged(nonce=nonce):
                signature = self._identity.sign_hello(nonce, authority)
                end.hello(Hello(self._card, signature, authority, self.runs.slots, self._token))
            case Welcomed():
                self._links.add(end)
                self.runs.link_up(end)
                self._note(relay, LinkStep.CONNECTED)
                _log.info("link.up", relay=relay.url)
            case Offered():
                self.runs.offered(end, event, now)
            case Rewound():
                self.runs.rewound(end, event, now)
            case Granted(sid=sid, total=total):
                self.runs.granted(end, sid, total, now)
            case Cancelled(sid=sid):
                self.runs.cancelled(end, sid)
            case Drained():
                self._note(relay, LinkStep.CONNECTED, "the relay is shutting down")

    def _note(self, relay: RelayState, step: LinkStep, detail: str = "") -> None:
        if (relay.step, relay.detail) != (step, detail):
            if detail and step is LinkStep.CONNECTED:
                _log.info("link.news", relay=relay.url, news=detail)
            elif detail:
                _log.warning("link.down", relay=relay.url, reason=detail)
            relay.step, relay.detail = step, detail

    # -- time ------------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self.runs.tick(self._clock())
            if self._keys.tick(self._wall_ms()):
                self._announce()

    async def _follow_engine(self) -> None:
        """While the engine is down no relay is told of free slots."""
        while True:
            await self.engine.wait_ready(False)
            self.runs.resize(0)
            await self.engine.wait_ready()
            self.runs.resize(self.engine.slots)

    def _make_card(self) -> Card:
        now_ms = self._wall_ms()
        self._sequence = max(now_ms, self._sequence + 1)  # a clock that is set back must not make an older card
        body = CardBody(
            identity=self._identity.public,
            sequence=self._sequence,
            issued_ms=now_ms,
            keys=self._keys.public_keys(now_ms),
            models=tuple(self.engine.models),
        )
        return self._identity.sign_card(body)

    def _announce(self) -> None:
        self._card = self._make_card()
        told = self.runs.status()
        for end in self._links:
            end.status(Status(told.slots, told.free, self._card))

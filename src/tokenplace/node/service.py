"""A node at work: one outgoing link to every relay, one engine, and the runs between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tokenplace.errors import Refused, WireError
from tokenplace.node.api import NodeApi
from tokenplace.node.classic import ClassicDoor, ClassicTask
from tokenplace.node.counts import Counts
from tokenplace.node.engines.base import Engine
from tokenplace.node.engines.echo import EchoEngine
from tokenplace.node.home import CardNumbers
from tokenplace.node.links import Links
from tokenplace.node.lookout import look_around, look_in_the_mirror
from tokenplace.node.mirror import Mirror
from tokenplace.node.runs import Run, Runs
from tokenplace.node.standing import LinkStep, RelayState, Report, Situation
from tokenplace.node.worker import SealedTask, Worker
from tokenplace.openai.usage import Usage
from tokenplace.sealing.exchange import open_request
from tokenplace.sealing.identity import Identity
from tokenplace.sealing.keys import KeyRing
from tokenplace.sealing.replay import ReplayGuard
from tokenplace.version import version
from tokenplace.wire.address import relay_address
from tokenplace.wire.card import Card, CardBody, ModelCard
from tokenplace.wire.classic import is_classic
from tokenplace.wire.ids import JobId, ModelId, show_node_id
from tokenplace.wire.limits import MAX_CARD_MODELS, TIMING, Timing
from tokenplace.wire.messages import Outcome

_TICK = 0.5
OWNER = "owner"
"""Who pauses by hand: by command, signal or the status page."""


@dataclass(slots=True)
class NodeState:
    """What a person may see of the node. Counts only."""

    relays: list[RelayState]
    counts: Counts
    pauses: dict[str, str] = field(default_factory=dict)
    """Why it takes no work, by who said so."""

    @property
    def connected(self) -> int:
        """How many relays take this node."""
        return sum(relay.step is LinkStep.CONNECTED for relay in self.relays)


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
        classic: ClassicDoor | None = None,
        numbers: CardNumbers | None = None,
        timing: Timing = TIMING,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._identity = identity
        self.engine = engine
        self._clock = clock
        self._wall_ms = wall_ms
        self._keys = KeyRing.generate(now_ms=wall_ms())
        self._replays = ReplayGuard(timing)
        self._tasks: dict[JobId, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        now = clock()
        self.state = NodeState(
            [RelayState(relay_address(url).geturl(), since=now) for url in dict.fromkeys(relays)], Counts(now)
        )
        self.runs = Runs(slots=engine.slots, timing=timing, start=self._start, stop=self._stop)
        self._api = classic or api
        self._worker = Worker(self.runs, clock, self._watched)
        self._classic = classic
        self._numbers = numbers
        self._sequence = numbers.last() if numbers is not None else 0
        self._mirror = Mirror(identity.node)
        self._card = self._make_card()
        self._links = Links(
            self.runs,
            identity=identity,
            card=lambda: self._card,
            token=token,
            timing=timing,
            clock=clock,
            renew=self._announce,
        )
        if classic is not None:
            classic.node = identity.node
            classic.keys.changed = self._announce
            classic.rotated = self.rotate_keys

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
                    group.create_task(self._links.stay(relay))
                group.create_task(self._tick())
                group.create_task(self._follow_engine())
                group.create_task(
                    look_around(
                        self.state.relays,
                        self.state.counts,
                        me=self._identity.node,
                        models=self._ids,
                        clock=self._clock,
                    )
                )
                group.create_task(look_in_the_mirror(self.state.relays, self._mirror))
                if self._classic is not None:
                    group.create_task(self._classic.keys.keep())
        finally:
            self.runs.stop_all()
            self._group = None

    async def drain(self, patience: float) -> None:
        """Take no new jobs, tell the relays, and wait for the answers that have begun, at most `patience` seconds.

        Those that have not begun are given back: their clients ask another node at once.
        """
        self.runs.draining = True
        self._links.drain()
        self.runs.hand_back()
        deadline = self._clock() + patience
        while (self.runs.busy or self.runs.unsent) and self._clock() < deadline:  # noqa: ASYNC110 - runs have no events
            await asyncio.sleep(0.05)

    def pause(self, reason: str, by: str = OWNER) -> None:
        """Take no new work; running answers end. Each who pauses (`by`) has to resume for himself."""
        fresh = not self.state.pauses
        self.state.pauses[by] = reason
        if fresh:
            self._offer()
            self._announce()

    def resume(self, by: str = OWNER) -> None:
        """Take work again, unless somebody else still pauses."""
        if self.state.pauses.pop(by, None) is not None and not self.state.pauses:
            self._offer()
            self._announce()

    def report(self) -> Report:
        """How it stands now, counts only."""
        now, counts = self._clock(), self.state.counts
        situation = Situation(
            relays=self.state.relays,
            models=self._ids(),
            warm=self.engine.ready,
            pauses=self.state.pauses,
            draining=self.runs.draining,
            running=counts.running,
            quiet=now - counts.last_asked,
        )
        report = Report.of(
            situation,
            counts,
            now,
            node=show_node_id(self._card.node),
            version=version(),
            mock=isinstance(self.engine, EchoEngine),
            slots=self.runs.slots,
        )
        return report if self._classic is None else replace(report, classic=dict(self._classic.counts))

    def _ids(self) -> tuple[ModelId, ...]:
        return tuple(model.id for model in self.engine.models)

    def rotate_keys(self) -> None:
        """A fresh sealing key from now on, told to every relay; requests in flight still open."""
        self._keys.rotate(self._wall_ms())
        self._announce()

    # -- jobs ------------------------------------------------------------------------------------------------------

    def _start(self, run: Run, sealed: bytes) -> None:
        if self._group is None:
            raise WireError("The node is not running.")
        if is_classic(sealed):
            if self._classic is None:
                raise Refused("This node takes no classic requests.", code="classic_off")
            work = self._worker.work(run, ClassicTask(self._classic, sealed))
        else:
            now_ms = self._wall_ms()
            opened = open_request(sealed, self._keys, now_ms=now_ms)
            self._replays.admit(opened.header, now_ms)
            work = self._worker.work(run, SealedTask(self._api, opened))
        task = self._group.create_task(work)
        self._tasks[run.job] = task
        self.state.counts.begin(run.job, self._clock())
        task.add_done_callback(lambda _: self._worked(run))

    def _stop(self, run: Run) -> None:
        task = self._tasks.get(run.job)
        if task is not None:
            task.cancel()

    def _worked(self, run: Run) -> None:
        """A worker's task is over, also one that was cancelled before it began."""
        self._tasks.pop(run.job, None)
        self.runs.release(run)
        outcome = run.ended.code if run.ended is not None else Outcome.CANCELLED
        self.state.counts.end(run.job, outcome, self._clock())

    def _watched(self, run: Run, usage: Callable[[], Usage]) -> None:
        self.state.counts.watch(run.job, usage)

    # -- time ------------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self.runs.tick(self._clock())
            self.state.counts.look(self._clock())
            if self._keys.tick(self._wall_ms()) or self._serves_others():
                self._announce()
                self._offer()

    async def _follow_engine(self) -> None:
        """While the engine is down no relay is told of free slots."""
        while True:
            await self.engine.wait_ready(False)
            self._offer()
            await self.engine.wait_ready()
            self._offer()

    def _serves_others(self) -> bool:
        """Whether the models have changed since the card was made. Those of an engine that is down are on their way."""
        return self.engine.ready and self._served() != self._card.body.models

    def _served(self) -> tuple[ModelCard, ...]:
        """What stands on the card. While somebody pauses nothing does: whoever asks hears at once that there is none,
        instead of waiting."""
        return () if self.state.pauses else tuple(self.engine.models)[:MAX_CARD_MODELS]

    def _offer(self) -> None:
        """Tell the relays how many jobs may come: none while the engine is down or somebody pauses."""
        takes = self.engine.ready and not self.state.pauses
        self.runs.resize(self.engine.slots if takes else 0)

    def _make_card(self) -> Card:
        now_ms = self._wall_ms()
        self._sequence = max(now_ms, self._sequence + 1)  # a clock that is set back must not make an older card
        if self._numbers is not None:
            self._numbers.note(self._sequence)
        body = CardBody(
            identity=self._identity.public,
            sequence=self._sequence,
            issued_ms=now_ms,
            keys=self._keys.public_keys(now_ms),
            models=self._served(),
            extra=self._classic.card_fields() if self._classic is not None else {},
        )
        card = self._identity.sign_card(body)
        self._mirror.made(card)
        return card

    def _announce(self) -> None:
        self._card = self._make_card()
        self._links.show_card()

"""Several engines as one: each with models of its own, loaded when they are asked for, given up when room is needed.

**What is offered.** A model stands on the node's card only while it is warm, or while it can be made warm within
`warm_within` seconds: it has been loaded before, that took at most half as long, and there is room for it now or an
idle model would make room. So whoever asks for what the card shows does not wait for a promise that cannot be kept.

**Who goes.** The model that has been idle longest; never one that is answering. One that waits for room longer than
`patience` is refused, and the client asks another node.

**Slots.** One number for all models: the smallest of theirs. So many answers at once are decoded together whichever
models they ask for; announcing the sum would let them all queue at one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from tokenplace.errors import EngineError, EngineFull
from tokenplace.node.engines.base import Engine, EngineAnswer, JsonObject, Readiness
from tokenplace.wire.card import ModelCard

log = structlog.get_logger()

WARM_WITHIN = 30.0
PATIENCE = 10.0
LOOK_EVERY = 5.0
"""Seconds between two looks for models that have been idle."""


def _always() -> bool:
    return True


@dataclass(slots=True, eq=False)
class Member:
    """One engine. `fits` says whether it could be loaded now; `resident` ones are never given up (upstreams)."""

    engine: Engine
    fits: Callable[[], bool] = _always
    resident: bool = False
    loaded: bool = False
    open: int = 0
    used: float = 0.0
    took: float = 0.0
    offered: bool = False
    cards: tuple[ModelCard, ...] = ()

    @property
    def warm(self) -> bool:
        """Whether it would answer at once."""
        return self.loaded and self.engine.ready


class SeveralEngines:
    """See the module. `idle_after` is seconds without an answer after which a model is unloaded.

    None: only for room.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        idle_after: float | None = None,
        warm_within: float = WARM_WITHIN,
        patience: float = PATIENCE,
        look_every: float = LOOK_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members = tuple(members)
        self._idle_after = idle_after
        self._warm_within = warm_within
        self._patience = patience
        self._look_every = look_every
        self._clock = clock
        self._readiness = Readiness()
        self._loading = asyncio.Lock()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def slots(self) -> int:
        """The smallest number of all engines."""
        return min(member.engine.slots for member in self._members)

    @property
    def models(self) -> Sequence[ModelCard]:
        """Those that are warm, and those that can be within bounds."""
        return tuple(card for member in self._members if member.warm or member.offered for card in self._cards(member))

    @property
    def ready(self) -> bool:
        """Whether any model would be answered."""
        return self._readiness.up

    async def wait_ready(self, ready: bool = True) -> None:
        """See `Engine.wait_ready`."""
        await self._readiness.wait(ready)

    async def start(self) -> None:
        """Load every model once, the first of them last, so that each has proven itself. Raises EngineError."""
        if self._tasks:
            raise EngineError("This engine was started already.")
        try:
            for member in reversed(self._members):
                async with self._loading:
                    await self._load(member)
        except BaseException:
            await self.stop()
            raise
        for member in self._members:
            if not member.loaded and not self._soon(member):
                log.warning("model_not_offered", models=self._names(member), load_s=round(member.took, 1))
        self._tasks = [asyncio.create_task(self._follow(member)) for member in self._members]
        self._tasks.append(asyncio.create_task(self._look()))
        self._review()

    async def stop(self) -> None:
        """Stop every engine. May be called twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for member in self._members:
            member.loaded = member.offered = False
        self._readiness.set(False)
        await asyncio.gather(*(member.engine.stop() for member in self._members))

    @asynccontextmanager
    async def open(self, path: str, body: JsonObject) -> AsyncIterator[EngineAnswer]:
        """Ask the engine that has the model; it is loaded first when need be."""
        if not self._readiness.up:
            raise EngineError("The engine is not running.")
        member = self._member(body.get("model"))
        async with self._taken(member), member.engine.open(path, body) as answer:
            yield answer

    async def busy_slots(self) -> int:
        """How many answers are open."""
        return sum(member.open for member in self._members)

    async def unload_idle(self) -> None:
        """Give up every model that nobody has asked for long enough, and that could soon be back."""
        if self._idle_after is None:
            return
        async with self._loading:
            for member in self._members:
                idle = self._clock() - member.used
                if self._may_go(member) and idle >= self._idle_after and self._soon(member):
                    await self._unload(member, "idle")

    # -- inside --------------------------------------------------------------------------------------------------------

    def _member(self, model: object) -> Member:
        for member in self._members:
            if any(card.id == model for card in self._cards(member)):
                return member
        if model is None:
            return self._members[0]
        raise EngineError(f"No engine of this node has the model {model!r}.")

    @asynccontextmanager
    async def _taken(self, member: Member) -> AsyncIterator[None]:
        """Inside the member is loaded and stays so."""
        member.open += 1  # before anything is awaited: nobody may take it away between
        try:
            if not member.loaded:
                async with self._loading:
                    if not member.loaded:
                        await self._load(member)
            yield
        finally:
            member.open -= 1
            member.used = self._clock()
            self._review()

    async def _load(self, member: Member) -> None:
        """Make room and load. Raises EngineError when there is none, or the engine cannot."""
        deadline = self._clock() + self._patience
        while not member.fits():
            idle = sorted((each for each in self._members if self._may_go(each)), key=lambda each: each.used)
            if idle:
                await self._unload(idle[0], "room")
                continue
            if not any(each.loaded and each.open and each is not member for each in self._members):
                break  # it is not us who take the memory: its guardrail says what is wrong
            await self._change(deadline - self._clock())
        began = self._clock()
        await member.engine.start()
        member.took, member.used, member.loaded = self._clock() - began, self._clock(), True
        member.cards = tuple(member.engine.models)
        log.info("model_loaded", models=self._names(member), took_s=round(member.took, 2))
        self._review()

    async def _change(self, patience: float) -> None:
        """Wait until an answer has ended somewhere."""
        self._changed.clear()
        try:
            async with asyncio.timeout(max(0.0, patience)):
                await self._changed.wait()
        except TimeoutError:
            raise EngineFull(
                "All memory is taken by models that are answering; try again soon, or ask another node."
            ) from None

    async def _unload(self, member: Member, why: str) -> None:
        member.loaded = False
        log.info("model_unloaded", models=self._names(member), why=why)
        await member.engine.stop()
        self._review()

    def _may_go(self, member: Member) -> bool:
        return member.loaded and not member.resident and not member.open

    def _soon(self, member: Member) -> bool:
        """Whether it can be back within bounds, as far as its last load tells."""
        return 2 * member.took <= self._warm_within

    def _review(self) -> None:
        """What can be offered has changed, maybe."""
        for member in self._members:
            cold = not member.loaded and bool(member.cards) and self._soon(member)
            room = cold and (any(self._may_go(each) for each in self._members) or member.fits())
            member.offered = room or (not member.loaded and member.open > 0 and member.offered)
        self._readiness.set(any(member.warm or member.offered for member in self._members))
        self._changed.set()

    def _cards(self, member: Member) -> Sequence[ModelCard]:
        return member.engine.models if member.loaded else member.cards

    def _names(self, member: Member) -> list[str]:
        return [card.id for card in self._cards(member) or member.engine.models]

    async def _follow(self, member: Member) -> None:
        """An engine that goes down takes its models off the card until it is back. Cancelled by `stop`."""
        while True:
            await member.engine.wait_ready(False)
            self._review()
            await member.engine.wait_ready()
            self._review()

    async def _look(self) -> None:
        """Cancelled by `stop`."""
        while True:
            await asyncio.sleep(self._look_every)
            await self.unload_idle()
            self._review()

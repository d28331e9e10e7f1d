"""Several engines as one: what is offered, who goes, and who never goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tokenplace.errors import EngineError
from tokenplace.node.engines.base import EngineAnswer
from tokenplace.node.engines.echo import EchoEngine
from tokenplace.node.engines.several import Member, SeveralEngines
from tokenplace.wire.ids import ModelId

CHAT = "/v1/chat/completions"
WORDS = "one two three"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Memory:
    """Room for so many models."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.held: list[str] = []


class Loaded(EchoEngine):
    """An echo that takes memory and time to load."""

    def __init__(self, name: str, memory: Memory, clock: Clock, *, slots: int = 4, takes: float = 1.0) -> None:
        super().__init__(model=ModelId(name), slots=slots)
        self.name, self.memory, self.clock, self.takes = name, memory, clock, takes
        self.loads = 0

    def fits(self) -> bool:
        return len(self.memory.held) < self.memory.room

    async def start(self) -> None:
        if not self.fits():
            raise EngineError(f"There is no room for {self.name}.")
        self.memory.held.append(self.name)
        self.loads += 1
        self.clock.now += self.takes
        await super().start()

    async def stop(self) -> None:
        if self.name in self.memory.held:
            self.memory.held.remove(self.name)
        await super().stop()


class Stage:
    """Engines a, b, c … over one memory."""

    def __init__(self, names: str, room: int, **more: Any) -> None:
        self.clock, self.memory = Clock(), Memory(room)
        takes = more.pop("takes", {})
        self.engines = {name: Loaded(name, self.memory, self.clock, takes=takes.get(name, 1.0)) for name in names}
        members = [Member(engine, engine.fits) for engine in self.engines.values()]
        self.several = SeveralEngines(members, clock=self.clock, look_every=3600, **more)

    async def ask(self, model: str, *, within: float = 20.0) -> str:
        async with asyncio.timeout(within), self.asking(model) as answer:
            return b"".join([chunk async for chunk in answer.chunks()]).decode()

    def asking(self, model: str) -> Any:
        return self.several.open(CHAT, {"model": model, "messages": [{"role": "user", "content": WORDS}]})

    @property
    def offered(self) -> Sequence[str]:
        return [card.id for card in self.several.models]


@asynccontextmanager
async def stage(names: str, room: int, **more: Any) -> AsyncIterator[Stage]:
    made = Stage(names, room, **more)
    await made.several.start()
    try:
        yield made
    finally:
        await made.several.stop()
        assert made.memory.held == []


async def test_all_that_fit_are_loaded_and_each_answers_for_itself() -> None:
    async with stage("abc", room=3) as on:
        assert on.memory.held == ["c", "b", "a"]
        assert on.offered == ["a", "b", "c"]
        assert '"model": "b"' in await on.ask("b")


async def test_the_first_named_is_warm_where_not_all_fit_and_the_others_are_offered_too() -> None:
    async with stage("ab", room=1) as on:
        assert on.memory.held == ["a"]
        assert on.offered == ["a", "b"]


async def test_a_model_is_loaded_when_it_is_asked_for_and_the_longest_idle_makes_room() -> None:
    async with stage("abc", room=2) as on:
        await on.ask("b")
        on.clock.now += 5
        await on.ask("a")
        await on.ask("c")
        assert sorted(on.memory.held) == ["a", "c"]
        await on.ask("b")
        assert sorted(on.memory.held) == ["b", "c"]


async def test_a_model_that_answers_is_never_given_up_and_who_waits_gets_its_room() -> None:
    async with stage("ab", room=1) as on:
        async with on.asking("a") as answer:
            waiting = asyncio.create_task(on.ask("b"))
            await asyncio.sleep(0)
            assert on.memory.held == ["a"]
            assert on.offered == ["a"], "nobody else shall be promised what has to wait for somebody"
            assert b"[DONE]" in b"".join([chunk async for chunk in answer.chunks()])
        assert "one" in await waiting
        assert on.memory.held == ["b"]


async def test_who_waits_too_long_for_room_is_refused_before_anything_was_answered() -> None:
    async with stage("ab", room=1, patience=0.05) as on, on.asking("a"):
        with pytest.raises(EngineError, match="ask another node"):
            await on.ask("b")
        assert on.memory.held == ["a"]


async def test_a_model_that_is_slow_to_load_is_offered_only_while_it_is_warm() -> None:
    async with stage("ab", room=1, takes={"b": 100.0}, warm_within=30.0) as on:
        assert on.offered == ["a"]


async def test_idle_models_are_given_up_and_come_back_when_they_are_asked_for() -> None:
    async with stage("ab", room=2, idle_after=60.0) as on:
        on.clock.now += 59
        await on.ask("a")
        on.clock.now += 30
        await on.several.unload_idle()
        assert on.memory.held == ["a"]
        assert on.offered == ["a", "b"]
        on.clock.now += 60
        await on.several.unload_idle()
        assert on.memory.held == []
        assert on.several.ready, "a node whose models sleep takes work all the same"
        assert "three" in await on.ask("b")
        assert on.engines["b"].loads == 2


async def test_a_model_with_an_open_answer_is_not_idle_however_long_it_takes() -> None:
    async with stage("ab", room=2, idle_after=60.0) as on, on.asking("a"):
        on.clock.now += 1000
        await on.several.unload_idle()
        assert on.memory.held == ["a"]


async def test_the_slots_are_the_fewest_of_all() -> None:
    memory, clock = Memory(2), Clock()
    engines = [Loaded("a", memory, clock, slots=8), Loaded("b", memory, clock, slots=2)]
    assert SeveralEngines([Member(each, each.fits) for each in engines]).slots == 2


async def test_two_who_ask_for_a_cold_model_at_once_load_it_once() -> None:
    async with stage("ab", room=1) as on:
        await asyncio.gather(on.ask("b"), on.ask("b"), on.ask("b"))
        assert on.engines["b"].loads == 2  # once at the start, once now


async def test_an_engine_that_goes_down_takes_its_models_off_the_offer_until_it_is_back() -> None:
    async with stage("ab", room=2) as on:
        on.engines["b"]._readiness.set(False)
        async with asyncio.timeout(20):
            while on.offered != ["a"]:
                await asyncio.sleep(0)
            on.engines["b"]._readiness.set(True)
            while on.offered != ["a", "b"]:
                await asyncio.sleep(0)


async def test_when_all_are_down_it_is_down() -> None:
    async with stage("a", room=1) as on:
        down = asyncio.create_task(on.several.wait_ready(False))
        on.engines["a"]._readiness.set(False)
        async with asyncio.timeout(20):
            await down
        assert not on.several.ready
        with pytest.raises(EngineError):
            await on.ask("a")


async def test_a_model_nobody_has_is_refused() -> None:
    async with stage("ab", room=2) as on:
        with pytest.raises(EngineError, match="'z'"):
            await on.ask("z")


async def test_a_model_that_cannot_be_loaded_is_told_at_start_and_nothing_is_left() -> None:
    on = Stage("ab", room=0)
    with pytest.raises(EngineError, match="no room for b"):
        await on.several.start()
    assert on.memory.held == []
    assert not on.several.ready


async def test_a_server_of_somebody_elses_stays_when_room_is_needed() -> None:
    clock, memory = Clock(), Memory(1)
    own = {name: Loaded(name, memory, clock) for name in "ab"}
    upstream = EchoEngine(model=ModelId("theirs"))
    members = [*(Member(each, each.fits) for each in own.values()), Member(upstream, resident=True)]
    several = SeveralEngines(members, clock=clock, look_every=3600, idle_after=1.0)
    await several.start()
    clock.now += 100
    await several.unload_idle()
    assert [card.id for card in several.models] == ["a", "b", "theirs"]
    assert upstream.ready
    async with several.open(CHAT, {"model": "theirs", "messages": []}) as answer:
        first: EngineAnswer = answer
        assert first.status == 200
    await several.stop()

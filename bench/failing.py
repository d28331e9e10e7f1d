"""What a request costs whose first node turns it away, beside one that is answered at once; real clients and nodes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from bench.crowd import QUIET, cpu
from puppets import decline, playing
from stage import Program, Stage
from tokenplace.client.answer import Phase
from tokenplace.client.client import CHAT, Client

_BODY = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


@dataclass(frozen=True, slots=True)
class Failing:
    """Both ways, the whole short answer included."""

    working: float
    failing: float
    """Seconds at the median."""
    working_cpu: float
    failing_cpu: float
    """µs of the relay's processor time."""


async def failing_path(stage: Stage, least: int = 100) -> Failing:
    """One relay with a good node and one that declines what it is offered; asked until both were met often enough."""
    relay = stage.relay("--blind", name="relay-failing", env=QUIET)
    stage.node(relay, name="node-failing")
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with playing(relay.url, decline):
        while min(map(len, found.values())) < least:
            async with Client([relay.url]) as client:  # a new one each time: it remembers who turned it away
                retried, *took = await _ask(client, relay)
            found[retried].append((took[0], took[1]))
    relay.end()
    working, failing = ([statistics.median(each) for each in zip(*found[way], strict=True)] for way in (False, True))
    return Failing(working[0], failing[0], working[1] * 1e6, failing[1] * 1e6)


async def _ask(client: Client, relay: Program) -> tuple[bool, float, float]:
    """Whether it was tried again, and how long it took, and how long the relay worked for it."""
    phases: list[Phase] = []
    spent, began = cpu(relay), time.perf_counter()
    async with client.ask(CHAT, _BODY, on_news=lambda news: phases.append(news.phase)) as answer:
        await answer.read()
    return Phase.RETRYING in phases, time.perf_counter() - began, cpu(relay) - spent

"""How a node stands, as its owner may see it anywhere: terminal, page, JSON. Counts only. Pure.

`why` holds the reasons why no work comes, most telling first; it is empty while there is work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tokenplace.node.counts import Counts
from tokenplace.node.demand import Demand
from tokenplace.node.mirror import Alarm

QUIET = 30.0
"""Seconds without a request after which a node is said to wait."""


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
    told: str = ""
    """The reason that was logged last, while it cannot be reached."""
    since: float = 0.0
    """When the link came up, or went."""
    draining: bool = False
    """The relay said that it shuts down."""
    demand: Demand | None = None
    """What its list said, the last time it was read."""
    alarm: Alarm | None = None
    """What is wrong with the card that it shows for this node."""


class Standing(StrEnum):
    """The node in one word."""

    SERVING = "serving"
    PAUSED = "paused"
    WARMING = "warming"
    """The model is being loaded (again)."""
    LOST = "not connected"
    DRAINING = "stopping"


@dataclass(frozen=True, slots=True)
class Why:
    """One reason why no work comes, with a stable code."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides whether work comes. `pauses` are the reasons of those who pause, by who they are."""

    relays: Sequence[RelayState]
    models: Sequence[str]
    warm: bool
    pauses: Mapping[str, str]
    draining: bool
    running: int
    quiet: float
    """Seconds since the last request, or since the start."""

    @property
    def standing(self) -> Standing:
        """The node in one word."""
        if self.draining:
            return Standing.DRAINING
        if not self.warm:
            return Standing.WARMING
        if self.pauses:
            return Standing.PAUSED
        if not any(relay.step is LinkStep.CONNECTED for relay in self.relays):
            return Standing.LOST
        return Standing.SERVING

    @property
    def why(self) -> tuple[Why, ...]:
        """Why no work comes."""
        if self.running:
            return ()
        if self.draining:
            return (Why("stopping", "This node is stopping and takes no new work."),)
        found = [] if self.warm else [Why("warming", "The model is being loaded; work comes when it is warm.")]
        found += [Why("paused", f"Paused: {reason}") for reason in self.pauses.values()]
        found += [why for relay in self.relays if (why := _of_link(relay)) is not None]
        ready = [relay for relay in self.relays if relay.step is LinkStep.CONNECTED and not relay.draining]
        if ready and self.warm and not self.pauses and self.quiet >= QUIET:
            found += _of_demand(ready, self.quiet, self.models)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class RelayLine:
    """One relay in a report."""

    url: str
    state: str
    detail: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything, at one moment. Times are seconds, `tokens_per_second` is of all answers together, now."""

    node: str
    version: str
    mock: bool
    standing: Standing
    uptime_s: float
    models: tuple[str, ...]
    slots: int
    running: int
    done: int
    failed: int
    cancelled: int
    prompt_tokens: int
    tokens: int
    tokens_per_second: float
    people_hours: float
    """Hours that people were being answered."""
    relays: tuple[RelayLine, ...]
    why: tuple[Why, ...] = field(default=())
    alarms: tuple[Why, ...] = field(default=())
    """What relays show under this node's id that it never said."""
    classic: Mapping[str, int] = field(default_factory=dict)
    """Requests of the original's protocol: `opened`, `refused`, and of the opened those with the old `pkcs1v15`."""

    @classmethod
    def of(
        cls, situation: Situation, counts: Counts, now: float, *, node: str, version: str, mock: bool, slots: int
    ) -> Report:
        """At the moment `now`."""
        return cls(
            node=node,
            version=version,
            mock=mock,
            standing=situation.standing,
            uptime_s=round(now - counts.began, 1),
            models=tuple(situation.models),
            slots=slots,
            running=counts.running,
            done=counts.done,
            failed=counts.failed,
            cancelled=counts.cancelled,
            prompt_tokens=counts.prompt_tokens,
            tokens=counts.tokens,
            tokens_per_second=round(counts.speed(now), 1),
            people_hours=round(counts.seconds / 3600, 4),
            relays=tuple(
                RelayLine(each.url, each.step.value, each.detail, round(now - each.since, 1))
                for each in situation.relays
            ),
            why=situation.why,
            alarms=tuple(
                Why(each.alarm.name.lower(), f"{each.url}: {each.alarm}")
                for each in situation.relays
                if each.alarm is not None
            ),
        )

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def _of_link(relay: RelayState) -> Why | None:
    if relay.step is not LinkStep.CONNECTED:
        return Why("not_connected", f"{relay.url}: {relay.detail or 'being dialled'}")
    if relay.draining:
        return Why("relay_draining", f"{relay.url} is shutting down; it is dialled again when it is gone.")
    return None


def _of_demand(relays: Sequence[RelayState], quiet: float, models: Sequence[str]) -> list[Why]:
    found = []
    for relay in relays:
        told = relay.demand
        if told is None:
            continue
        if not told.listed:
            found.append(Why("not_listed", f"{relay.url} does not show this node to people; ask its operator."))
        elif told.set_aside:
            found.append(
                Why("set_aside", f"{relay.url} sends nothing here for a while, because answers of this node failed.")
            )
    named = ", ".join(models) or "this node's models"
    message = f"Nobody has asked for {named} for {_lasting(quiet)}."
    heard = [relay.demand for relay in relays if relay.demand is not None]
    if rivals := max((told.rivals for told in heard), default=0):
        message += f" {rivals} other {'node has' if rivals == 1 else 'nodes have'} the same and a free slot."
    found.append(Why("nobody_asks", message))
    elsewhere = list(dict.fromkeys(name for told in heard for name in told.elsewhere))
    if elsewhere:
        found.append(
            Why("model_not_wanted", f"People ask for {', '.join(elsewhere)} now; --model chooses what is served here.")
        )
    return found


def _lasting(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{int(seconds)} seconds"

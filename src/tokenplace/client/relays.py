"""The relays a client knows, in order; the next one serves when one fails."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from tokenplace.client.door import Directory, Door
from tokenplace.errors import NoNode, Refused, RelayUnreachable
from tokenplace.wire.ids import ModelId, NodeId
from tokenplace.wire.messages import Listing

_FRESH = 2.0
"""Seconds for which a directory is used again; a choice that is a little old only queues a little longer."""

_PAUSE = 10.0
"""Seconds for which a relay that failed is tried last."""

_SUGGESTIONS = 8


class Relays:
    """Doors in the order they were given; those that failed lately come last."""

    def __init__(
        self,
        doors: Sequence[Door],
        clock: Callable[[], float] = time.monotonic,
        named: Callable[[], Collection[NodeId]] = frozenset,
        *,
        sticky: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        if not doors:
            raise RelayUnreachable("No relay is named; pass one with --relay or TOKEN_PLACE_RELAYS.")
        self._doors = list(doors)
        self._clock = clock
        self._named = named
        self._sticky = sticky
        self._rng = rng or random.Random()  # noqa: S311 - spreads the load
        self._liked: dict[ModelId | None, NodeId] = {}
        self._failed: dict[Door, float] = {}
        self._directories: dict[tuple[Door, ModelId | None], tuple[float, Directory]] = {}
        self._cards: dict[tuple[Door, NodeId], tuple[float, Directory]] = {}
        self._looks: dict[tuple[Door, ModelId | None], _Look] = {}

    def in_order(self) -> list[Door]:
        """Every door, the best to try first."""
        return sorted(self._doors, key=self.troubled)

    def troubled(self, door: Door) -> bool:
        """Whether it failed lately."""
        return self._clock() - self._failed.get(door, float("-inf")) < _PAUSE

    def failed(self, door: Door) -> None:
        """A door did not open; try others first for a while."""
        self._failed[door] = self._clock()
        self.forget(door)

    @property
    def several(self) -> bool:
        """Whether there is a next one."""
        return len(self._doors) > 1

    def works(self, door: Door) -> None:
        """A door opened."""
        self._failed.pop(door, None)

    def answered(self, model: ModelId | None, node: NodeId) -> None:
        """A node gave an answer; a sticky client asks it again while it has a free slot."""
        if self._sticky and self._liked.get(model) != node:
            self._liked[model] = node
            self._directories.clear()

    def forget(self, door: Door) -> None:
        """What that door said is out of date."""
        self._directories = {key: kept for key, kept in self._directories.items() if key[0] is not door}
        self._cards = {key: kept for key, kept in self._cards.items() if key[0] is not door}

    def pass_over(self, door: Door, node: NodeId) -> None:
        """A node failed: what that door said is used on without it. Where nobody else is left, it is asked anew.

        Asking anew every time would make a request that fails once cost more than two that do not.
        """
        kept = {}
        for key, (when, directory) in self._directories.items():
            rest = [listing for listing in directory.listings if key[0] is not door or listing.card.node != node]
            if rest:
                kept[key] = (when, replace(directory, listings=rest))
        self._directories = kept
        self._cards.pop((door, node), None)

    def chosen(self, node: NodeId) -> None:
        """A request goes to this node. For whoever asks next, what the relays said of it is one request old.

        Without this everybody who asks within the two seconds of one directory goes to the same node.
        """
        self._directories = {
            key: (when, busier(directory, node)) for key, (when, directory) in self._directories.items()
        }

    async def directories(
        self, model: ModelId | None, wanted: Callable[[NodeId], bool] = lambda _: True
    ) -> list[tuple[Door, Directory]]:
        """What the relays know, the first that lists a wanted node at the end of it.

        Asks one after the other until one lists such a node; a relay that is going away only counts where no other
        does. Raises RelayUnreachable when none answered at all.
        """
        answers: list[tuple[Door, Directory]] = []
        problem: RelayUnreachable | None = None
        for door in self.in_order():
            try:
                directory = await self._ask(door, model)
            except (RelayUnreachable, Refused) as error:
                self.failed(door)
                problem = problem or RelayUnreachable(error.message)
                continue
            self.works(door)
            answers.append((door, directory))
            if not directory.draining and any(wanted(listing.card.node) for listing in directory.listings):
                break
        if not answers and problem is not None:
            raise problem
        return sorted(answers, key=lambda answer: answer[1].draining)

    async def having(self, node: NodeId, *, fresh: bool = False) -> list[tuple[Door, Directory]]:
        """The relay that has this very node, and its card; `fresh` asks even where that was asked just now.

        Raises RelayUnreachable when none answered, NoNode.
        """
        problem: RelayUnreachable | None = None
        for door in self.in_order():
            kept = self._cards.get((door, node))
            if not fresh and kept is not None and self._clock() - kept[0] < _FRESH:
                return [(door, kept[1])]
            try:
                directory = await door.nodes(None, 1, node)
            except (RelayUnreachable, Refused) as error:
                self.failed(door)
                problem = problem or RelayUnreachable(error.message)
                continue
            self.works(door)
            if directory.listings:
                now = self._clock()
                self._cards = {key: each for key, each in self._cards.items() if now - each[0] < _FRESH}
                self._cards[door, node] = (now, directory)
                return [(door, directory)]
        if problem is not None:
            raise problem
        raise NoNode("The node that this request is for is not connected right now.")

    async def several_nodes(self, model: ModelId | None, count: int) -> list[tuple[Door, Directory]]:
        """Up to `count` nodes of each relay that answers. Raises RelayUnreachable when none does."""
        answers: list[tuple[Door, Directory]] = []
        problem: RelayUnreachable | None = None
        for door in self.in_order():
            try:
                answers.append((door, await door.nodes(model, count)))
            except (RelayUnreachable, Refused) as error:
                self.failed(door)
                problem = problem or RelayUnreachable(error.message)
        if not answers and problem is not None:
            raise problem
        return answers

    async def _ask(self, door: Door, model: ModelId | None) -> Directory:
        """Who is there. Those who ask in the same moment look once, and see each other's choices."""
        key = door, model
        while True:
            kept = self._directories.get(key)
            if kept is not None and self._clock() - kept[0] < _FRESH:
                return kept[1]
            look = self._looks.get(key)
            if look is None:
                return await self._look_for_all(key)
            await look.over.wait()
            if look.problem is not None:
                raise look.problem
            if look.empty is not None:
                return look.empty

    async def _look_for_all(self, key: tuple[Door, ModelId | None]) -> Directory:
        look = self._looks[key] = _Look()
        now = self._clock()
        try:
            directory = await self._look(*key)
        except (RelayUnreachable, Refused) as error:
            look.problem = error
            raise
        finally:
            del self._looks[key]
            look.over.set()
        if directory.listings:
            self._directories[key] = (now, directory)
        else:
            look.empty = directory
        return directory

    async def _look(self, door: Door, model: ModelId | None) -> Directory:
        """A relay suggests a few of its nodes at random, so pinned ones are asked for by name."""
        named = sorted(self._named())
        if not named:
            return await door.nodes(model, _SUGGESTIONS, prefer=self._liked.get(model))
        few = self._rng.sample(named, min(len(named), _SUGGESTIONS))
        asked = [await door.nodes(model, 1, node) for node in few]
        return replace(asked[0], listings=[listing for directory in asked for listing in directory.listings])

    async def aclose(self) -> None:
        """Close every door."""
        for door in self._doors:
            await door.aclose()


@dataclass(slots=True, eq=False)
class _Look:
    """One question to a relay that several wait for. One that was cancelled leaves nothing: somebody else asks then."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    problem: RelayUnreachable | Refused | None = None
    empty: Directory | None = None
    """What was answered, where there is nothing to keep."""


def busier(directory: Directory, node: NodeId) -> Directory:
    """The directory after one more request for that node, if it lists it. First stand those that are free, in the
    relay's order, then those with the shortest wait.
    """
    if all(listing.card.node != node for listing in directory.listings):
        return directory
    listings = [_with_one_more(each) if each.card.node == node else each for each in directory.listings]
    return replace(directory, listings=sorted(listings, key=_wait))


def _with_one_more(listing: Listing) -> Listing:
    if listing.free > 0:
        return replace(listing, free=listing.free - 1)
    return replace(listing, queued=listing.queued + 1)


def _wait(listing: Listing) -> float:
    """How many answers a request would wait for."""
    return 0.0 if listing.free > 0 else (listing.queued + 1) / max(1, listing.slots)

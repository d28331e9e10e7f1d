"""Nodes by model, to be drawn from at random in constant time. Every question costs the same however many there are."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import islice
from math import floor, log
from typing import Generic, Protocol, TypeVar

from tokenplace.wire.card import Card
from tokenplace.wire.ids import ModelId, NodeId
from tokenplace.wire.limits import MAX_LISTED_MODELS
from tokenplace.wire.messages import Listing


class Choice(Protocol):
    """A node that a client may be sent to."""

    @property
    def id(self) -> NodeId:
        """Its fingerprint."""

    @property
    def card(self) -> Card:
        """What it says of itself."""

    @property
    def free(self) -> int:
        """Free slots."""

    @property
    def cost(self) -> float:
        """Seconds until a typical answer from it would be whole, as far as can be told."""

    def listing(self) -> Listing:
        """As the directory shows it."""


N = TypeVar("N", bound=Choice)


class _Bag(Generic[N]):
    """A set one can draw from at random in constant time."""

    def __init__(self) -> None:
        self._items: list[N] = []
        self._places: dict[NodeId, int] = {}

    def add(self, node: N) -> None:
        self._places[node.id] = len(self._items)
        self._items.append(node)

    def discard(self, node: NodeId) -> None:
        place = self._places.pop(node, None)
        if place is None:
            return
        last = self._items.pop()
        if last.id != node:
            self._items[place] = last
            self._places[last.id] = place

    def __len__(self) -> int:
        return len(self._items)

    def only(self, node: NodeId) -> list[N]:
        place = self._places.get(node)
        return [] if place is None else [self._items[place]]

    def draw(self, rng: random.Random, count: int) -> list[N]:
        return rng.sample(self._items, min(count, len(self._items)))  # shuffled too: equals take turns at the head


_LEAST = 1e-3
_STEP = log(4 / 3)


class Index(Generic[N]):
    """The nodes that may be suggested."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._all: _Bag[N] = _Bag()
        self._by_model: dict[ModelId, _Bag[N]] = {}
        self._models: dict[NodeId, frozenset[ModelId]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, node: N) -> None:
        """Suggest it from now on, for the models of its card."""
        self.discard(node.id)
        models = self._models[node.id] = frozenset(model.id for model in node.card.body.models)
        self._all.add(node)
        for model in models:
            self._by_model.setdefault(model, _Bag()).add(node)

    def discard(self, node: NodeId) -> None:
        """Suggest it no more."""
        self._all.discard(node)
        for model in self._models.pop(node, ()):
            bag = self._by_model[model]
            bag.discard(node)
            if not len(bag):
                del self._by_model[model]

    def models(self) -> dict[ModelId, int]:
        """What is served, and by how many; of very many models those that have been here longest."""
        return {model: len(bag) for model, bag in islice(self._by_model.items(), MAX_LISTED_MODELS)}

    def pick(self, model: ModelId | None, count: int, prefer: NodeId | None = None) -> list[N]:
        """Up to `count` nodes, the soonest first, drawn from twice as many at random.

        The power of two choices (Mitzenmacher 2001): nearly as good as asking all, at a constant price. The node that
        is preferred comes first while it has a free slot (it may know the beginning of the prompt).
        """
        bag = self._all if model is None else self._by_model.get(model)
        if bag is None:
            return []
        drawn = bag.draw(self._rng, 2 * count)
        if prefer is not None and not any(node.id == prefer for node in drawn):
            drawn += bag.only(prefer)
        return soonest(drawn, count, prefer)


def soonest(nodes: Iterable[N], count: int, prefer: NodeId | None = None) -> list[N]:
    """The best of some nodes: the preferred one while it has a free slot, then by their cost; equals as they came.

    Costs within a third of each other are equal: clients that ask together would else all be sent to the one node
    that is a millisecond nearer.
    """
    return sorted(nodes, key=lambda node: (not (node.id == prefer and node.free > 0), _class_of(node.cost)))[:count]


def _class_of(cost: float) -> int:
    """Seconds, in steps of a third."""
    return floor(log(max(cost, _LEAST)) / _STEP)


def serves(card: Card, model: ModelId | None) -> bool:
    """Whether a card offers a model; no model means any."""
    return model is None or any(each.id == model for each in card.body.models)

"""Which model a name means here, what it can do, and under which charter it speaks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from tokenplace.node.engines.base import Engine
from tokenplace.openai import refusals
from tokenplace.openai.asking import Traits
from tokenplace.openai.catalogue import AdapterEntry
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId


@dataclass(frozen=True, slots=True)
class Meant:
    """One model, found. `id` is what the answer calls it, `card.id` what the engine does."""

    id: str
    card: ModelCard
    traits: Traits
    charter: str | None = None


class Names:
    """The names that are understood here.

    `aliases` are further names of served models. `adapters` ride on served models: those with LoRA weights are on the
    engine's own list, those with a charter only need their base there. `stands_in_for` are names that the engine's
    first model answers to though it is another one; its answers say which. `traits_of` are those of single models, by
    the engine's name, where several engines differ.
    """

    def __init__(
        self,
        engine: Engine,
        traits: Traits,
        *,
        aliases: Mapping[str, str],
        adapters: Iterable[AdapterEntry],
        stands_in_for: Collection[str],
        traits_of: Mapping[str, Traits] | None = None,
    ) -> None:
        self._engine = engine
        self._traits = traits
        self._traits_of = dict(traits_of or {})
        self._aliases = dict(aliases)
        self._adapters = {adapter.id: adapter for adapter in adapters}
        self._stands_in_for = frozenset(stands_in_for)

    def find(self, name: str) -> Meant:
        """The model meant. Raises ApiError when it is not served here."""
        served = {card.id: card for card in self._engine.models}
        id = ModelId(name if name in served else self._aliases.get(name, name))
        adapter = self._adapters.get(id)
        charter = adapter.charter if adapter is not None else None
        if (card := served.get(id)) is not None:
            return self._meant(id, card, charter)
        if adapter is not None and adapter.file is None and (card := served.get(adapter.base)) is not None:
            return self._meant(id, card, charter)
        if id in self._stands_in_for and self._engine.models:
            card = self._engine.models[0]
            return self._meant(card.id, card, charter)
        raise refusals.model_unknown(name, sorted({*served, *self._ridden(served)}))

    def _ridden(self, served: Collection[ModelId]) -> list[ModelId]:
        return [id for id, adapter in self._adapters.items() if adapter.file is None and adapter.base in served]

    def _meant(self, id: str, card: ModelCard, charter: str | None) -> Meant:
        traits = self._traits_of.get(card.id, self._traits)
        traits = replace(
            traits,
            max_choices=self._engine.slots if traits.max_choices is None else traits.max_choices,
            context=card.context if traits.context is None else traits.context,
            vision="vision" in card.capabilities if traits.vision is None else traits.vision,
            embeddings="embeddings" in card.capabilities if traits.embeddings is None else traits.embeddings,
        )
        return Meant(id, card, traits, charter)

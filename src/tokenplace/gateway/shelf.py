"""What can be asked for: what nodes serve now, then what the catalogue knows and nobody serves."""

from __future__ import annotations

from collections.abc import Mapping

from tokenplace.client.client import Client
from tokenplace.openai.catalogue import AdapterEntry, ApiVersion, Catalogue, ModelEntry
from tokenplace.openai.models import ListedModel
from tokenplace.wire.ids import ModelId


class Shelf:
    """The models of one gateway. With `stand_in` a served one answers to catalogue models that nobody serves."""

    def __init__(self, client: Client, catalogue: Catalogue, *, stand_in: bool) -> None:
        self._client = client
        self._catalogue = catalogue
        self._stand_in = stand_in

    async def listed(self, version: ApiVersion) -> dict[str, ListedModel]:
        """By id, the served ones first."""
        models: dict[str, ListedModel] = {}
        for served in await self._client.models():
            entry = self._catalogue.entries.get(served.id)
            models[served.id] = served.listed(entry.base if isinstance(entry, AdapterEntry) else None)
        served_now = dict(models)
        stand_in = self._standing_in({ModelId(each.id): each.nodes for each in served_now.values()})
        for entry in self._catalogue.versions[version]:
            if entry.id not in served_now:
                models[entry.id] = self._unserved(entry, served_now.get(entry.base), stand_in)
        return models

    def _unserved(
        self, entry: ModelEntry | AdapterEntry, base: ListedModel | None, stand_in: ModelId | None
    ) -> ListedModel:
        """An entry that no card lists: an adapter is there all the same where its base is."""
        weights = self._catalogue.weights_of(entry.id)
        rides = base is not None and self._catalogue.served_as(entry.id) == base.id
        return ListedModel(
            id=entry.id,
            context_length=base.context_length if rides and base else weights.context,
            capabilities=base.capabilities if rides and base else weights.capabilities,
            nodes=base.nodes if rides and base else 0,
            loaded=rides,
            base=entry.base if isinstance(entry, AdapterEntry) else None,
            stand_in=None if rides else stand_in,
        )

    async def chosen(self, model: ModelId) -> ModelId:
        """The model by which a node is chosen for a request that names this one. Raises RelayUnreachable."""
        wanted = self._catalogue.served_as(model)
        if not self._stand_in or model not in self._catalogue.entries:
            return wanted
        served = {each.id: each.nodes for each in await self._client.models()}
        return wanted if wanted in served else self._standing_in(served) or wanted

    def _standing_in(self, served: Mapping[ModelId, int]) -> ModelId | None:
        """Who answers for others: a toy before a model that somebody may be in earnest about."""
        if not self._stand_in or not served:
            return None
        toys = {entry.id for entry in self._catalogue.models if entry.toy}
        return max(served, key=lambda id: (id in toys, served[id], id))

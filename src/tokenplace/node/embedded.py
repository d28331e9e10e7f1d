"""The embedded engine for one model of the settings: its file, its adapters, its place in this machine's memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from tokenplace.errors import EngineError, WeightsError
from tokenplace.node.engines.llama import LlamaEngine, LlamaOptions, suitable_slots
from tokenplace.node.gguf import Header, read_header
from tokenplace.node.guardrail import Guardrail
from tokenplace.node.hardware import Sensors
from tokenplace.node.memory import anatomy, headroom_of
from tokenplace.node.named import model_named
from tokenplace.node.settings import EMBEDDED, EMBEDDED_CONTEXT, NodeSettings
from tokenplace.node.weights import Weights
from tokenplace.openai.asking import Traits
from tokenplace.openai.catalogue import Catalogue, ModelEntry
from tokenplace.wire.card import ModelCard
from tokenplace.wire.ids import ModelId

Progress = Callable[[int, int | None], None]
_log = structlog.get_logger("tokenplace.node")


@dataclass(frozen=True, slots=True)
class Embedded:
    """One model's engine, not started yet, what it can do, and every name it answers to."""

    engine: LlamaEngine
    traits: Traits
    names: tuple[ModelId, ...]


def embedded(settings: NodeSettings, names: Sequence[str], progress: Progress | None) -> list[Embedded]:
    """An engine for each named model; the embedded default where none is named. Fetches what is missing.

    Raises EngineError, WeightsError, ApiError.
    """
    catalogue = Catalogue.load()
    entries = list(
        {entry.id: entry for entry in (model_named(catalogue, name) for name in names or [EMBEDDED])}.values()
    )
    if len(entries) > 1 and settings.vision is not None:
        raise EngineError("A projector file (TOKEN_PLACE_VISION) belongs to one model; serve that model alone.")
    files = _lora(settings)
    sensors = Sensors()
    made: list[Embedded] = []

    def mapped_beside(me: int) -> int:
        others = (each.engine for index, each in enumerate(made) if index != me)
        return sum(other.sizing.mapped for other in others if other.sizing is not None and other.pid is not None)

    for index, entry in enumerate(entries):
        mine = {name: path for name, path in files.items() if _owner(name, entries) == entry.id}
        made.append(
            _one(settings, catalogue, entry, mine, sensors, lambda me=index: mapped_beside(me), progress)  # type: ignore[misc]
        )
    return made


def _one(
    settings: NodeSettings,
    catalogue: Catalogue,
    entry: ModelEntry,
    adapters: dict[ModelId, Path],
    sensors: Sensors,
    mapped_beside: Callable[[], int],
    progress: Progress | None,
) -> Embedded:
    weights = Weights(settings.weights_dir)
    verified = weights.ensure(entry, progress)
    if settings.vision is not None and not settings.vision.is_file():
        raise EngineError(f"There is no projector file {settings.vision}.")
    for adapter in catalogue.adapters:
        if adapter.base == entry.id and adapter.file is not None:
            adapters.setdefault(adapter.id, weights.ensure(adapter, progress).path)
    header = _header(verified.path)
    trained = header.whole("context_length") if header is not None else 0
    gpu = settings.gpu_layers != 0 and bool(sensors.gpus())
    options = LlamaOptions(
        slots=settings.slots or suitable_slots(sensors.cores(), gpu=gpu),
        context=min(settings.context or EMBEDDED_CONTEXT, entry.context, trained or entry.context),
        threads=settings.threads,
        adapters=adapters,
        vision=settings.vision,
        embeddings=settings.embeddings != 0,
        batch=settings.embeddings or None,  # an input of /v1/embeddings must be computed in one batch
        gpu_layers=None if settings.gpu_layers < 0 else settings.gpu_layers,
        confined=settings.confine,
    )
    capabilities = [*entry.capabilities, *(["embeddings"] if options.embeddings else [])]
    if options.vision is not None and "vision" not in capabilities:
        capabilities.append("vision")
    card = ModelCard(
        id=entry.id, context=options.context, capabilities=tuple(capabilities), digest=f"sha256:{verified.digest}"
    )
    extras = [*adapters.values(), *([options.vision] if options.vision else [])]
    guardrail = _guardrail(settings, entry.id, header, extras, sensors, mapped_beside)
    engine = LlamaEngine(verified.path, card, options, guardrail)
    return Embedded(engine, _traits(entry), (entry.id, *adapters))


def _header(path: Path) -> Header | None:
    try:
        return read_header(path)
    except WeightsError as error:
        _log.warning("model_head_unread", reason=error.message)  # the engine itself tells what is wrong with the file
        return None


def _guardrail(
    settings: NodeSettings,
    name: ModelId,
    header: Header | None,
    extras: Collection[Path],
    sensors: Sensors,
    mapped_beside: Callable[[], int],
) -> Guardrail | None:
    if header is None:
        return None
    try:
        model = anatomy(header, sum(path.stat().st_size for path in extras))
    except WeightsError:
        return None
    return Guardrail(
        name=name,
        model=model,
        look=sensors.hardware,
        headroom=headroom_of(settings.gpu_headroom),
        gpu_layers=None if settings.gpu_layers < 0 else settings.gpu_layers,
        fixed_slots=settings.slots is not None,
        fixed_context=settings.context is not None,
        mapped_beside=mapped_beside,
    )


def _owner(adapter: ModelId, entries: Sequence[ModelEntry]) -> ModelId:
    """Which model an adapter rides on: the one whose id its own begins with, else the first."""
    return next((entry.id for entry in entries if adapter.startswith(f"{entry.id}:")), entries[0].id)


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

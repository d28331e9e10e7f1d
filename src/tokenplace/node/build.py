"""From settings to a warm engine and its API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenplace.errors import EngineError
from tokenplace.node.api import NodeApi
from tokenplace.node.classic import ClassicDoor, ClassicKeys
from tokenplace.node.embedded import Progress, embedded
from tokenplace.node.engines.base import Engine
from tokenplace.node.engines.echo import EchoEngine
from tokenplace.node.engines.local import find_local_engines
from tokenplace.node.engines.several import Member, SeveralEngines
from tokenplace.node.engines.upstream import DEFAULT_CONTEXT, UpstreamEngine
from tokenplace.node.named import is_address
from tokenplace.node.settings import NodeSettings
from tokenplace.openai.asking import Traits
from tokenplace.openai.catalogue import Catalogue
from tokenplace.openai.screening import PhraseScreen
from tokenplace.sealing.operator import Operator
from tokenplace.spelling import secret
from tokenplace.wire.ids import ModelId

_UPSTREAM_SLOTS = 4
_IDLE_UNLOAD = 900.0
"""Seconds, where several models are served and the settings say nothing."""

ECHO = Traits(
    native_tools=False,
    max_choices=1,
    lacks=frozenset({"logprobs", "logit_bias", "response_format", "stop", "tools", "functions"}),
)
"""What a parrot can do."""


def make_engine(settings: NodeSettings, progress: Progress | None = None) -> tuple[Engine, NodeApi]:
    """The engine that the settings name, not started yet, and the API over it; several of them as one.

    Blocking: weights that are missing are fetched, with `progress(done, total)`. Raises EngineError, WeightsError,
    ApiError.
    """
    if settings.mock or settings.named_engines == ("echo",):
        echo = EchoEngine(slots=settings.slots or 64, delay=settings.echo_delay)
        return echo, _api(echo, ECHO, settings)
    kinds = [_resolved(kind) for kind in settings.named_engines or ("llama",)]
    addresses = [kind for kind in kinds if kind.startswith(("http://", "https://"))]
    for kind in kinds:
        if kind != "llama" and kind not in addresses:
            raise EngineError(f"An engine is llama, echo, auto or an http:// address, not {kind!r}.")
    own, theirs = _dealt_out(settings.named_models, inside="llama" in kinds, outside=bool(addresses))
    inside = embedded(settings, own, progress) if "llama" in kinds else []
    upstreams = [_upstream(settings, address, theirs) for address in addresses]
    traits = Traits(max_choices=settings.slots or _UPSTREAM_SLOTS) if upstreams else inside[0].traits
    engine: Engine
    if len(inside) + len(upstreams) == 1 and not settings.idle_unload:
        engine = inside[0].engine if inside else upstreams[0]
    else:
        idle = _IDLE_UNLOAD if settings.idle_unload is None else settings.idle_unload
        members = [Member(each.engine, each.engine.fits) for each in inside]
        members += [Member(upstream, resident=True) for upstream in upstreams]
        engine = SeveralEngines(members, idle_after=idle or None)
    traits_of: dict[str, Traits] = {name: each.traits for each in inside for name in each.names}
    return engine, _api(engine, traits, settings, traits_of)


def _resolved(kind: str) -> str:
    """`auto` as what it means on this machine now."""
    if kind != "auto":
        return kind
    found = [each for each in find_local_engines() if each.models]
    return found[0].url if found else "llama"


def _dealt_out(names: Sequence[str], *, inside: bool, outside: bool) -> tuple[list[str], list[str]]:
    """(models for the embedded engine, models for the servers): with both, what we know by name is ours."""
    if not (inside and outside):
        return list(names), list(names)
    catalogue = Catalogue.load()
    own = [name for name in names if is_address(name) or catalogue.canonical(name) in catalogue.entries]
    return own, [name for name in names if name not in own]


def make_classic(settings: NodeSettings, engine: Engine, api: NodeApi) -> ClassicDoor | None:
    """The door for requests of the original's protocol, unless the settings keep it shut."""
    if not settings.classic:
        return None
    operator = Operator(settings.operator) if settings.operator else None
    return ClassicDoor(api, engine, ClassicKeys(pkcs1v15=settings.classic_pkcs1v15, operator=operator))


def _api(
    engine: Engine, traits: Traits, settings: NodeSettings, traits_of: Mapping[str, Traits] | None = None
) -> NodeApi:
    """The API with the names of the catalogue and the rules of the settings."""
    catalogue = Catalogue.load()
    return NodeApi(
        engine,
        traits=traits,
        traits_of=traits_of,
        aliases=catalogue.aliases,
        adapters=catalogue.adapters,
        stands_in_for=catalogue.entries if settings.stand_in else (),
        screen=PhraseScreen(settings.phrases) if settings.phrases else None,
    )


def _upstream(settings: NodeSettings, address: str, models: Sequence[str]) -> UpstreamEngine:
    return UpstreamEngine(
        address,
        key=secret(settings.upstream_key),
        slots=settings.slots or _UPSTREAM_SLOTS,
        context=settings.context or DEFAULT_CONTEXT,
        names={ModelId(name): name for name in models} or None,
        capabilities=_capabilities(settings),
    )


def _capabilities(settings: NodeSettings) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for capability, models in (("vision", settings.vision_models), ("embeddings", settings.embedding_models)):
        for model in models:
            told.setdefault(model, []).append(capability)
    return told

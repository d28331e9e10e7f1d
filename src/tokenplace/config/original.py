"""What became of the original's environment variables and configuration keys.

A name that still means what it meant is honoured; any other is answered with what takes its place, and never passed
over in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenplace.config.document import Json

RELAYS = "TOKEN_PLACE_RELAYS"

_NODES_DIAL = "nodes dial the relay, so it needs no address of theirs; a node is told its relays in TOKEN_PLACE_RELAYS"
_NO_LISTENING = "a node listens nowhere; it dials the relays in TOKEN_PLACE_RELAYS"
_ONE_PROCESS = "a relay is one process; for more, run replicas of it"
_METRICS = "the figures are always counted; GET /metrics of the relay shows them"
_TESTS = "it steered the original's own tests"


@dataclass(frozen=True, slots=True)
class Retired:
    """A variable that no program reads any more. One whose name others use too (`common`) is told of only by
    `tokenplace config show`."""

    advice: str
    common: bool = False


VARIABLES: Mapping[str, Retired] = {
    "API_BASE_URL": Retired("its successor is TOKEN_PLACE_RELAYS", common=True),
    "TOKENPLACE_RELAY_UPSTREAM_URL": Retired(_NODES_DIAL),
    "TOKENPLACE_GPU_HOST": Retired(_NODES_DIAL),
    "TOKENPLACE_GPU_PORT": Retired(_NODES_DIAL),
    "GPU_SERVER_HOST": Retired(_NODES_DIAL),
    "GPU_SERVER_PORT": Retired(_NODES_DIAL),
    "PROD_RELAY_HOST": Retired("its successor is RELAY_HOST"),
    "PROD_API_HOST": Retired("its successor is `tokenplace gateway --host`"),
    "PROD_SERVER_HOST": Retired(_NO_LISTENING),
    "RELAY_WORKERS": Retired(_ONE_PROCESS),
    "RELAY_THREADS": Retired(_ONE_PROCESS),
    "RELAY_TIMEOUT": Retired("a job lives as long as it makes progress"),
    "RELAY_WORKER_TMP_DIR": Retired(_ONE_PROCESS),
    "TOKEN_PLACE_PERF_MONITOR": Retired(_METRICS),
    "TOKEN_PLACE_PERF_SAMPLES": Retired(_METRICS),
    "ENVIRONMENT": Retired("its successor is TOKEN_PLACE_ENV", common=True),
    "PLATFORM": Retired("the platform is found out", common=True),
    "CONTAINER_RUNTIME": Retired(_TESTS, common=True),
    "CONTAINER_TEST_IMAGE": Retired(_TESTS, common=True),
    "TEST_COVERAGE": Retired(_TESTS, common=True),
    "RUN_E2E": Retired(_TESTS, common=True),
    "RUN_DSPACE_INTEGRATION": Retired(_TESTS, common=True),
}
"""Where a settings class of this build declares the same name, that wins and the row here is asleep."""

_LISTEN = "its successors are RELAY_HOST and RELAY_PORT of the relay, and --host and --port of the gateway"
_ASKED = "each request says it itself"
_CATALOGUE = "the catalogue knows each model's file, address and checksum; `tokenplace models list` shows them"

KEYS: Mapping[str, str] = {
    "relay.server_registration_token": "TOKEN_PLACE_RELAY_SERVER_TOKEN",
    "relay.cluster_only": "TOKEN_PLACE_RELAY_CLUSTER_ONLY",
    "relay.cloudflare_fallback_urls": "TOKEN_PLACE_RELAY_CLOUDFLARE_URLS",
    "model.default_model": "TOKEN_PLACE_MODEL",
    "model.use_mock": "USE_MOCK_LLM",
    "model.context_size": "TOKEN_PLACE_CONTEXT",
    "model.n_gpu_layers": "TOKEN_PLACE_GPU_LAYERS",
    "model.gpu_memory_headroom_percent": "TOKEN_PLACE_GPU_HEADROOM",
    "paths.models_dir": "TOKEN_PLACE_MODELS_DIR",
    "api.host": "gateway.host",
    "api.port": "gateway.port",
}
"""Keys of the original that are honoured, each with the variable (or key) that it sets, where this build has it."""

ADVICE: Mapping[str, str] = {
    "server.": _NO_LISTENING,
    "security.": "everything is sealed, always, and keys turn by themselves; there is nothing to set",
    "api.cors_origins": "no page of another address may ask, and nothing opens that",
    "api.": _LISTEN,
    "relay.workers": _ONE_PROCESS,
    "relay.request_timeout": "a job lives as long as it makes progress",
    "model.temperature": _ASKED,
    "model.top_p": _ASKED,
    "model.max_tokens": _ASKED,
    "model.stop_tokens": _ASKED,
    "model.n_gpu_layers": "this build's embedded engine chooses by itself",
    "model.gpu_memory_headroom_percent": "this build's embedded engine chooses by itself",
    "model.enforce_gpu_memory_headroom": "it is always enforced",
    "model.": _CATALOGUE,
    "paths.": "its successors are TOKEN_PLACE_STATE_DIR and TOKEN_PLACE_MODELS_DIR",
    "constants.": "nothing reads them",
    "version": "`tokenplace --version` knows",
}
"""What takes the place of every other key of the original, by the longest beginning that fits."""

_RELAY_KEYS = (
    "relay.server_url",
    "relay.server_pool",
    "relay.server_pool_secondary",
    "relay.additional_servers",
    "api.relay_url",
)
"""For a node and a client: relays to use, in this order."""


def is_relay_key(key: str) -> bool:
    """Whether this key names relays."""
    return key in _RELAY_KEYS


def relays_of(said: Mapping[str, Json]) -> str | None:
    """The relays that the original's keys name, as TOKEN_PLACE_RELAYS would say it; None when they name none."""
    named: list[str] = []
    for key in _RELAY_KEYS:
        value = said.get(key)
        named += _addresses(value if isinstance(value, list) else [value])
    return ",".join(dict.fromkeys(named)) or None


def _addresses(words: Sequence[Json]) -> list[str]:
    found = []
    for word in words:
        text = _joined(word) if isinstance(word, Mapping) else word
        if isinstance(text, str) and text.strip():
            found.append(text.strip().rstrip("/"))
    return found


def _joined(table: Mapping[str, Json]) -> str:
    """`{"base_url" | "url" | "host": …, "port": …}` as one address."""
    base = next((str(table[name]) for name in ("base_url", "url", "host") if table.get(name)), "")
    if base and "://" not in base:
        base = f"http://{base}"
    return f"{base.rstrip('/')}:{table['port']}" if base and table.get("port") else base


def advice_on(key: str) -> str | None:
    """What takes the place of a key that nothing reads; None when the original had no such key."""
    fitting = [start for start in ADVICE if key == start or (start.endswith(".") and key.startswith(start))]
    return ADVICE[max(fitting, key=len)] if fitting else None

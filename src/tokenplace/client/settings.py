"""The client's settings; the only place of this room that reads the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenplace import places
from tokenplace.errors import WireError
from tokenplace.spelling import words
from tokenplace.wire.ids import NodeId, parse_node_id

DEFAULT_RELAY = "http://127.0.0.1:5000"
RELAYS_VARIABLE = "TOKEN_PLACE_RELAYS"
"""Relays to ask, in this order. `--relay` replaces the list."""
FALLBACKS_VARIABLE = "API_FALLBACK_URLS"
"""Further relays, tried after those."""
PINS_VARIABLE = "TOKEN_PLACE_PINNED_NODES"
"""Node ids. When there are any, no other node is ever asked."""
ISSUERS_VARIABLE = "TOKEN_PLACE_TRUSTED_ISSUERS"
"""Ids of people whose vouchers are believed. When there are any, only pinned nodes and those they name are asked."""
VOUCHERS_VARIABLE = "TOKEN_PLACE_VOUCHERS"
"""Files with vouchers, one in each."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Which relays to use, in order, which nodes to trust, and where to remember the nodes met."""

    relays: tuple[str, ...]
    pins: tuple[NodeId, ...] = ()
    issuers: tuple[NodeId, ...] = ()
    vouchers: tuple[Path, ...] = ()
    memory: Path | None = None

    @classmethod
    def read(cls, env: Mapping[str, str], relays: Sequence[str] = ()) -> ClientSettings:
        """Flags first, then TOKEN_PLACE_RELAYS, then a relay on this machine; API_FALLBACK_URLS come after.

        Raises WireError for a pin or an issuer that is no id.
        """
        named = list(relays) or words(env.get(RELAYS_VARIABLE, "")) or [DEFAULT_RELAY]
        named += words(env.get(FALLBACKS_VARIABLE, ""))
        return cls(
            relays=tuple(dict.fromkeys(relay.rstrip("/") for relay in named)),
            pins=_ids(env, PINS_VARIABLE),
            issuers=_ids(env, ISSUERS_VARIABLE),
            vouchers=tuple(Path(word).expanduser() for word in words(env.get(VOUCHERS_VARIABLE, ""))),
            memory=places.state() / "known-nodes.json",
        )


def _ids(env: Mapping[str, str], variable: str) -> tuple[NodeId, ...]:
    ids = []
    for word in words(env.get(variable, "")):
        try:
            ids.append(parse_node_id(word))
        except WireError as error:
            raise WireError(f"{variable} has {word!r} in it. {error.message}") from None
    return tuple(ids)

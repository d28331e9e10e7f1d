"""Which relays a node serves: the lists that people have set, read, put in order, and made equal."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from urllib.parse import SplitResult

from tokenplace.errors import TokenPlaceError
from tokenplace.wire.address import relay_address


class NoRelay(TokenPlaceError):
    """No relay is left to serve."""

    code = "no_relay"


def listed(text: str) -> list[str]:
    """A list as people write it: a JSON array, one JSON string, or words with commas or line breaks between.

    Raises ValueError for JSON that is neither an array of strings nor a string.
    """
    text = text.strip()
    if text.startswith(("[", '"')):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ValueError(f"it looks like JSON, but is not ({error})") from None
        words = value if isinstance(value, list) else [value]
        if not all(isinstance(word, str) for word in words):
            raise ValueError("a JSON list of addresses holds strings only")
        return [word.strip() for word in words if word.strip()]
    return [word.strip() for word in re.split(r"[,\n]", text) if word.strip()]


def chosen(groups: Iterable[Sequence[str]], *, default: str, cluster_only: bool = False) -> tuple[str, ...]:
    """Every relay of the lists once, in order, in one spelling; `default` where they name none.

    With `cluster_only` addresses of this very machine are left out. Raises NoRelay when none is left, WireError for
    one that is no address.
    """
    named = [relay_address(url) for group in groups for url in group] or [relay_address(default)]
    left = [url for url in named if not (cluster_only and is_here(url.hostname or ""))]
    if not left:
        raise NoRelay(
            "TOKEN_PLACE_RELAY_CLUSTER_ONLY leaves relays on this machine out, and no other is named. Name one with "
            "--relay, TOKEN_PLACE_RELAYS or TOKEN_PLACE_RELAY_UPSTREAMS."
        )
    return tuple({_same(url): url.geturl() for url in reversed(left)}[key] for key in dict.fromkeys(map(_same, left)))


def _same(url: SplitResult) -> tuple[object, ...]:
    """What two spellings of one address have in common."""
    return url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80), url.path


def is_here(host: str) -> bool:
    """Whether a host name is this machine by its very spelling: localhost, a loopback or an unspecified address."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        # Sockets also take 127.1 and 0 for addresses, which ip_address does not.
        address = ip_address(host) if ":" in host else ip_address(socket.inet_aton(host))
    except (ValueError, OSError):
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)

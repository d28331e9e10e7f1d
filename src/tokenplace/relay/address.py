"""Who is really asking: the client's address behind the proxies that the operator declared.

A proxy appends the address it saw to a header; whatever stands left of that was written by strangers. So the chain is
read from the right, one entry for each declared proxy, and never past an address that is not one of them. Only the one
header that the operator's proxies write is read, because a proxy passes the other one on as the client sent it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice

from tokenplace.errors import TokenPlaceError
from tokenplace.relay.asgi import Scope

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

CLIENT = "token.place.client"
"""Where the relay leaves, in the scope's state, the Client that asks."""

CLIENT_KEY: ContextVar[str] = ContextVar("tokenplace_client", default="")
"""By what the request that is being answered is counted: an API key's holder, else the client's address.

A gateway in the relay's process asks through many layers that need not know who its client is; its door here does.
"""

_MOST_HOPS = 16
_HOUSEHOLD = 64
"""Bits of an IPv6 address that name one household: the rest its machines change at will."""


class BadProxies(TokenPlaceError):
    """TOKEN_PLACE_TRUSTED_PROXIES cannot be read."""

    code = "bad_trusted_proxies"


class ForwardedHeader(StrEnum):
    """Which header the declared proxies write."""

    X_FORWARDED_FOR = "x-forwarded-for"
    FORWARDED = "forwarded"


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks. `ip` is None where the server could not tell."""

    ip: IpAddress | None
    key: str
    """What limits and fair share count by: the address, and of IPv6 the /64 that one household has."""


UNKNOWN = Client(None, "unknown")


class TrustedProxies:
    """The proxies whose word about their clients is believed. Raises BadProxies for words that are no addresses."""

    def __init__(self, words: Iterable[str] = (), header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR) -> None:
        self._networks = tuple(_network(word.strip()) for word in words if word.strip())
        self._name = header.value.encode()
        self._entries = _forwarded if header is ForwardedHeader.FORWARDED else _x_forwarded_for

    @property
    def declared(self) -> bool:
        """Whether there are any."""
        return bool(self._networks)

    def mark(self, scope: Scope) -> Client:
        """Find who asks and leave it in the scope's state, where `client_address` finds it."""
        client = self.client(scope)
        scope.setdefault("state", {})[CLIENT] = client
        return client

    def client(self, scope: Scope) -> Client:
        """Who asks. Costs a microsecond or two: addresses met before are remembered, parsed."""
        peer = scope.get("client")
        address = _parsed(peer[0]) if peer else None
        if address is None:
            return UNKNOWN
        if self._networks and self._trusts(address):
            address = self._behind(scope, address)
        return _client(address)

    def _behind(self, scope: Scope, proxy: IpAddress) -> IpAddress:
        """The first address from the right that is no declared proxy; else the last that could be read."""
        values = [value for name, value in scope["headers"] if name == self._name]
        address = proxy
        for entry in islice(self._entries(b",".join(values).decode("latin-1")), _MOST_HOPS):
            nearer = _parsed(entry)
            if nearer is None:  # "unknown" or nonsense: nothing left of it can be believed
                break
            address = nearer
            if not self._trusts(address):
                break
        return address

    def _trusts(self, address: IpAddress) -> bool:
        return any(address in network for network in self._networks)


def client_address(scope: Scope, proxies: TrustedProxies | None = None) -> Client:
    """Who asks: what a door before us found, else found here through `proxies` (none: the connection's peer)."""
    found = scope.get("state", {}).get(CLIENT)
    if isinstance(found, Client):
        return found
    return (proxies or _NOBODY).client(scope)


def _network(word: str) -> IpNetwork:
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        hint = " `*` would let every client name its own address." if word == "*" else ""
        raise BadProxies(
            f"TOKEN_PLACE_TRUSTED_PROXIES: {word[:60]!r} is no address and no network such as 10.0.0.0/8.{hint}"
        ) from None
    if network.prefixlen == 0:
        raise BadProxies(
            f"TOKEN_PLACE_TRUSTED_PROXIES: {word} is everybody, so that every client could name its own address; "
            "name the addresses of your proxies."
        )
    return network


@lru_cache(maxsize=4096)
def _parsed(text: str) -> IpAddress | None:
    """An address as proxies write it: bare, with a port, in brackets."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)
def _client(address: IpAddress) -> Client:
    if isinstance(address, IPv6Address):
        return Client(address, str(IPv6Network((address, _HOUSEHOLD), strict=False)))
    return Client(address, str(address))


def _x_forwarded_for(value: str) -> Iterator[str]:
    """The entries, the nearest first."""
    return reversed(value.split(","))


def _forwarded(value: str) -> Iterator[str]:
    """The `for` of each element (RFC 7239 section 4), the nearest first; one without it hides its client."""
    return (_named_for(element) for element in _from_the_right(value, ","))


def _named_for(element: str) -> str:
    for pair in _from_the_right(element, ";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value
    return "unknown"


def _from_the_right(value: str, mark: str) -> Iterator[str]:
    """What stands between marks outside of quotes, the last first.

    Read from that side, a quote that a stranger left open cannot swallow what a proxy has appended. Each character is
    looked at once or twice: what took longer for some texts would hold up everybody.
    """
    quoted, end = False, len(value)
    for place in range(len(value) - 1, -1, -1):
        if value[place] == '"' and not (quoted and _escaped(value, place)):
            quoted = not quoted
        elif value[place] == mark and not quoted:
            yield value[place + 1 : end]
            end = place
    yield value[:end]


def _escaped(value: str, place: int) -> bool:
    first = place
    while first and value[first - 1] == "\\":
        first -= 1
    return (place - first) % 2 == 1


_NOBODY = TrustedProxies()

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
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
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

_PASSED_ON = frozenset({b"x-forwarded-for", b"forwarded"})
_MOST_HOPS = 16
_HOUSEHOLD = 64
"""Bits of an IPv6 address that name one household: the rest its machines change at will."""


_SHORTEST = {4: 8, 6: 16}
"""Bits of a network that a few proxies may be in; with fewer it is a part of the internet."""

_ONE_S_OWN = IPv6Network("fc00::/7")
_MAPPED = IPv6Network("::ffff:0:0/96")


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
    forwarded: bool = False
    """Whether a proxy that nobody declared passed it on, or so it says: then the address is that proxy's."""

    @property
    def is_here(self) -> bool:
        """Whether it is on this very machine."""
        return self.ip is not None and self.ip.is_loopback and not self.forwarded

    @property
    def through_a_proxy(self) -> bool:
        """Whether it is a proxy of the operator's, from all that can be told: a neighbour that passes others on."""
        return self.forwarded and self.ip is not None and not self.ip.is_global


UNKNOWN = Client(None, "unknown")


class TrustedProxies:
    """The proxies whose word about their clients is believed. Raises BadProxies for words that are no addresses."""

    def __init__(self, words: Iterable[str] = (), header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR) -> None:
        self._networks = tuple(_network(word.strip()) for word in words if word.strip())
        _check_that_most_are_strangers(self._networks)
        self._name = header.value.encode()
        self._entries = _forwarded if header is ForwardedHeader.FORWARDED else _x_forwarded_for

    @property
    def declared(self) -> bool:
        """Whether there are any."""
        return bool(self._networks)

    def are(self, client: Client) -> bool:
        """Whether this client is one of them."""
        return client.ip is not None and self._trusts(client.ip)

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
            return _client(self._behind(scope, address), forwarded=False)
        return _client(address, forwarded=any(name in _PASSED_ON for name, _ in scope["headers"]))

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


def network_of(word: str) -> IpNetwork:
    """An address or a network; one of IPv4 that is written as IPv6 is what it maps. Raises ValueError."""
    network = ip_network(word, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return IPv4Network((mapped or 0, network.prefixlen - _MAPPED.prefixlen))
    return network


def _check_that_most_are_strangers(networks: tuple[IpNetwork, ...]) -> None:
    """Networks side by side count as one. Raises BadProxies."""
    together: list[IpNetwork] = []
    together += collapse_addresses([network for network in networks if isinstance(network, IPv4Network)])
    together += collapse_addresses([network for network in networks if isinstance(network, IPv6Network)])
    for network in together:
        private = isinstance(network, IPv6Network) and network.subnet_of(_ONE_S_OWN)
        if network.prefixlen < _SHORTEST[network.version] and not private:
            raise BadProxies(
                f"TOKEN_PLACE_TRUSTED_PROXIES: {network} is a part of the internet, and every client in it could "
                "name its own address (an IPv4 /8 or IPv6 /16 is the most); name the addresses of your proxies."
            )


def _network(word: str) -> IpNetwork:
    try:
        return network_of(word)
    except ValueError:
        hint = " `*` would let every client name its own address." if word == "*" else ""
        raise BadProxies(
            f"TOKEN_PLACE_TRUSTED_PROXIES: {word[:60]!r} is no address and no network such as 10.0.0.0/8.{hint}"
        ) from None


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
def _client(address: IpAddress, *, forwarded: bool) -> Client:
    if isinstance(address, IPv6Address):
        return Client(address, str(IPv6Network((address, _HOUSEHOLD), strict=False)), forwarded)
    return Client(address, str(address), forwarded)


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

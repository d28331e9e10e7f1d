"""The way to a relay: name, encryption, clock, WebSocket (through the proxy, where there is one) and admission.

The link is tried for real, with an identity made for the purpose: a HELLO with no slots and no models, the WELCOME,
and a goodbye. A working node of this machine is not disturbed, and nobody is sent to us.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult

import httpx2 as httpx
from websockets.asyncio.client import connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    WebSocketException,
)

from tokenplace.errors import LinkError, WireError
from tokenplace.link.ends import NodeEnd
from tokenplace.link.events import Challenged, Welcomed
from tokenplace.node.checkup.finding import Finding, bad, hint, ok
from tokenplace.node.links import Socket, link_url
from tokenplace.node.polled import LinkClosed, open_polled
from tokenplace.sealing.identity import Identity
from tokenplace.sealing.keys import KeyRing
from tokenplace.wire import routes
from tokenplace.wire.address import relay_address
from tokenplace.wire.card import CardBody
from tokenplace.wire.limits import MAX_MESSAGE, TIMING
from tokenplace.wire.messages import Hello

PATIENCE = 10.0
"""Seconds for each step."""

NOTABLE_SKEW = 30.0
"""Seconds by which clocks may differ before it is mentioned; more than `TIMING.clock_skew` breaks requests."""


async def relay(url: str, token: str | None, wall: Callable[[], float] = time.time) -> list[Finding]:
    """Everything about one relay, until something stands in the way."""
    try:
        parts = relay_address(url)
    except WireError as error:
        return [bad("address", url, error.message)]
    name = parts.geturl()
    proxy = proxy_for(parts)
    found = [await _name(parts, proxy)]
    if found[-1].verdict.value == "bad":
        return found
    response, finding = await _reach(name, proxy)
    found.append(finding)
    if response is None:
        return found
    found.append(_clock(name, response.headers.get("date"), wall()))
    found.append(await _link(name, token, proxy))
    return found


def proxy_for(parts: SplitResult) -> str | None:
    """The proxy that this machine is set up to use for an address, None where there is none."""
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


async def _name(parts: SplitResult, proxy: str | None) -> Finding:
    host = parts.hostname or ""
    if proxy is not None:
        return ok("name", f"{host}: left to the proxy {_shown(proxy)}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return bad(
            "name",
            f"{host} cannot be found ({getattr(error, 'strerror', None) or error})",
            "Check the spelling and this machine's network and DNS.",
        )
    except TimeoutError:
        return bad("name", f"{host}: no answer from DNS", "Check this machine's network and DNS.")
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    return ok("name", f"{host} is {', '.join(addresses[:4])}")


async def _reach(url: str, proxy: str | None) -> tuple[httpx.Response | None, Finding]:
    way = f" through {_shown(proxy)}" if proxy else ""
    encrypted = "encrypted" if url.startswith("https:") else "not encrypted"
    try:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            response = await client.get(url + routes.LIVEZ)
        alive = response.status_code == httpx.codes.OK and response.json().get("status") == "alive"
    except httpx.ProxyError as error:
        return None, bad("reach", f"the proxy {_shown(proxy)} refuses ({error})", _ASK_FOR_WAY)
    except httpx.HTTPError as error:
        return None, _unreached(url, proxy, error)
    except (ValueError, AttributeError):
        alive = False
    if response.status_code == httpx.codes.PROXY_AUTHENTICATION_REQUIRED and proxy is not None:
        return None, bad("reach", f"the proxy {_shown(proxy)} wants a login", _ASK_FOR_WAY)
    if not alive:
        return None, bad(
            "reach",
            f"{url} answers{way}, but is no relay (status {response.status_code} at {routes.LIVEZ})",
            "Check the address: host, port and path are those that the relay's operator gave out.",
        )
    return response, ok("reach", f"{url} answers{way} ({encrypted})")


_LET_IT_THROUGH = (
    "Something in between does not pass WebSockets on. The relay's operator mends that at its proxy (headers "
    "Upgrade and Connection); whoever runs this network, at theirs."
)
_ASK_FOR_WAY = "Ask who runs the proxy to let this machine reach the relay, or name another in HTTPS_PROXY."


def _unreached(url: str, proxy: str | None, error: httpx.HTTPError) -> Finding:
    cause = _tls_cause(error)
    if cause is not None:
        return bad(
            "reach",
            f"{url} is not who it says: {cause}",
            "If this machine's clock is right, something in between opens TLS or the relay's certificate is bad; a "
            "company's own root certificate goes into SSL_CERT_FILE. Tell the relay's operator.",
        )
    if isinstance(error, httpx.TimeoutException):
        seen = f"{url} does not answer within {PATIENCE:.0f} s"
    else:
        seen = f"{url} cannot be reached ({error or type(error).__name__})"
    if proxy is not None:
        return bad("reach", f"{seen}, through {_shown(proxy)}", _ASK_FOR_WAY)
    return bad(
        "reach", seen, "Is the relay running, is the port right, does a firewall here let outgoing connections pass?"
    )


def _tls_cause(error: BaseException) -> str | None:
    """What TLS had to complain of, however deep it lies."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message
        if isinstance(seen, ssl.SSLError):
            return seen.reason or "TLS failed"
        seen = seen.__cause__ or seen.__context__
    return "its certificate" if "CERTIFICATE_VERIFY_FAILED" in str(error) else None


def _clock(url: str, date: str | None, now: float) -> Finding:
    try:
        there = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return ok("clock", f"{url} does not tell its time")
    skew = now - there
    told = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {url}"
    todo = "Set this machine's clock (timedatectl set-ntp true, or the system's settings)."
    if abs(skew) > TIMING.clock_skew:
        return bad("clock", f"{told}; requests would be refused", todo)
    if abs(skew) > NOTABLE_SKEW:
        return hint("clock", told, todo)
    return ok("clock", f"within {NOTABLE_SKEW:.0f} s of {url}")


async def _link(url: str, token: str | None, proxy: str | None) -> Finding:
    address, authority = link_url(url)
    try:
        async with asyncio.timeout(PATIENCE):
            began = time.monotonic()
            async with connect(address, compression=None, max_size=MAX_MESSAGE, close_timeout=1) as socket:
                await _greet(socket, authority, token)
            took = time.monotonic() - began
    except ConnectionClosed as closed:
        reason = closed.rcvd.reason if closed.rcvd else ""
        return bad("admission", f"{url} does not take this node", reason or "Ask the relay's operator why.")
    except InvalidProxyStatus as error:
        return bad("link", f"the proxy {_shown(proxy)} answers {error.response.status_code}", _ASK_FOR_WAY)
    except (InvalidProxy, ImportError) as error:
        return bad("link", f"the proxy {_shown(proxy)} cannot be used: {error}", "Name an HTTP proxy in HTTPS_PROXY.")
    except InvalidStatus as error:
        seen = f"{url} answers requests, but its WebSocket with status {error.response.status_code}"
        return await _polled(url, authority, token, seen)
    except (InvalidHandshake, WebSocketException, LinkError, OSError, TimeoutError) as error:
        seen = f"the WebSocket to {url} does not come up ({error or type(error).__name__})"
        return await _polled(url, authority, token, seen)
    through = f" through {_shown(proxy)}" if proxy else ""
    return ok("link", f"WebSocket{through} and admission: welcome after {took * 1000:.0f} ms")


async def _polled(url: str, authority: str, token: str | None, seen: str) -> Finding:
    """No WebSocket passes: whether the node can serve by polling instead."""
    try:
        async with asyncio.timeout(PATIENCE), open_polled(url) as socket:
            await _greet(socket, authority, token)
    except LinkClosed as closed:
        return bad("admission", f"{url} does not take this node", closed.reason or "Ask the relay's operator why.")
    except (LinkError, OSError, TimeoutError) as error:
        return bad("link", f"{seen}, and polling fails too ({error or type(error).__name__})", _LET_IT_THROUGH)
    return hint("link", f"{seen}; the node serves by polling, which is slower", _LET_IT_THROUGH)


async def _greet(socket: Socket, authority: str, token: str | None) -> None:
    """Introduce a node without slots, and leave when it is welcome."""
    identity = Identity.generate()
    now_ms = time.time_ns() // 1_000_000
    keys = KeyRing.generate(now_ms=now_ms)
    body = CardBody(
        identity=identity.public, sequence=now_ms, issued_ms=now_ms, keys=keys.public_keys(now_ms), models=()
    )
    card = identity.sign_card(body)
    end = NodeEnd()
    async for message in socket:
        if isinstance(message, str):
            raise LinkError("The link speaks binary messages.")
        for event in end.receive(message, time.monotonic()):
            match event:
                case Challenged(nonce=nonce):
                    end.hello(Hello(card, identity.sign_hello(nonce, authority), authority, 0, token))
                case Welcomed():
                    return
        while out := end.take():
            await socket.send(out)
    raise LinkError("The relay closed the link without a word.")


def _shown(proxy: str | None) -> str:
    """A proxy's address without its password."""
    return (proxy or "").rpartition("@")[2].removeprefix("http://")

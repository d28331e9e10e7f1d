"""What comes in over HTTP, counted and logged: which kind of route, how it ended, how long it took. Nothing else.

A log line never holds a path, a query, an address or a header of the client but the name it gave its request; sizes
are rounded up to a power of two, so that they do not tell what was said.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from enum import StrEnum

import structlog

from tokenplace.relay.asgi import WRITTEN, Message, Scope, Send, header
from tokenplace.relay.histogram import Histogram
from tokenplace.wire import routes


class Route(StrEnum):
    """The kinds of routes: a closed set, for labels."""

    PROBE = "probe"
    METRICS = "metrics"
    OPERATOR = "operator"
    DIRECTORY = "directory"
    SUBMIT = "submit"
    RESUME = "resume"
    CANCEL = "cancel"
    CLASSIC = "classic"
    LINK = "link"
    ASK = "ask"
    API = "api"
    PAGE = "page"


COUNTED = frozenset({Route.SUBMIT, Route.ASK})
"""What costs a volunteer's machine something, and so counts against a client's limits."""

_EXACT = {
    routes.LIVEZ: Route.PROBE,
    routes.HEALTHZ: Route.PROBE,
    routes.METRICS: Route.METRICS,
    routes.DIAGNOSTICS: Route.OPERATOR,
    routes.SERVER_NODES: Route.DIRECTORY,
    routes.NODES: Route.DIRECTORY,
    "/next_server": Route.DIRECTORY,
}
_CLASSIC = frozenset({"/faucet", "/sink", "/source", "/retrieve", "/stream/source", "/stream/retrieve"})
_API = ("/v1/", "/v2/", "/api/")
_ON_A_JOB = {"GET": Route.RESUME, "DELETE": Route.CANCEL}

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_NAME = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def route_of(method: str, path: str) -> Route:
    """Which kind of route this is."""
    found = _EXACT.get(path)
    if found is not None:
        return found
    if path == routes.JOBS:
        return Route.SUBMIT if method == "POST" else Route.API
    if path.startswith(routes.JOBS + "/"):
        return _ON_A_JOB.get(method, Route.API)
    if path == routes.LINK or path.startswith(routes.LINK + "/"):
        return Route.LINK
    if path in _CLASSIC:
        return Route.SUBMIT if (method, path) == ("POST", "/faucet") else Route.CLASSIC
    if path.startswith(_API):
        return Route.ASK if method == "POST" else Route.API
    return Route.PAGE


class AccessLog(StrEnum):
    """Which requests are written to the log."""

    ALL = "all"
    SOME = "some"
    """Questions and failures; not what goes well on the routes that carry the load."""
    OFF = "off"


_QUIET = frozenset({Route.PROBE})
_BUSY = frozenset(
    {Route.LINK, Route.DIRECTORY, Route.RESUME, Route.CANCEL, Route.CLASSIC, Route.PAGE, Route.METRICS, Route.SUBMIT}
)
_log = structlog.get_logger("tokenplace.relay")


class Traffic:
    """Counts of all requests of one relay, and its access log."""

    def __init__(self, clock: Callable[[], float], access_log: AccessLog = AccessLog.SOME) -> None:
        self._clock = clock
        self._access_log = access_log
        self.requests: Counter[tuple[Route, int]] = Counter()
        self.seconds: defaultdict[Route, Histogram] = defaultdict(Histogram)

    def watch(self, scope: Scope, send: Send, route: Route) -> Exchange:
        """Look at one request; answer it through the exchange's `send`, and call its `end` whatever happens."""
        return Exchange(self, scope, send, route, self._clock())

    def ended(self, exchange: Exchange) -> None:
        """Count a request that is over. Status 499: the client left before it was answered."""
        took = self._clock() - exchange.began
        route, status = exchange.route, exchange.status or 499
        self.requests[route, status] += 1
        self.seconds[route].add(took)
        if self._logged(route, status):
            _log.info("http.request", **exchange.fields(status, took))

    def _logged(self, route: Route, status: int) -> bool:
        if self._access_log is AccessLog.OFF or route in _QUIET:
            return False
        return self._access_log is AccessLog.ALL or route not in _BUSY or (status >= 400 and status != 499)


class Exchange:
    """One request and what is sent for it."""

    __slots__ = ("_before", "_scope", "_send", "_sent", "_traffic", "_written", "began", "head", "route", "status")

    def __init__(self, traffic: Traffic, scope: Scope, send: Send, route: Route, began: float) -> None:
        self._traffic = traffic
        self._scope = scope
        self._send = send
        self.route = route
        self.began = began
        self.status = 0
        self.head: Message = {}
        self._sent = 0
        self._written: Callable[[], int] = scope.get("state", {}).get(WRITTEN, int)
        self._before: int = self._written()

    @property
    def size(self) -> int:
        """Bytes of the answer so far, those that went out the short way among them."""
        return self._sent + self._written() - self._before

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on. Not a coroutine itself: every piece of every answer comes through here."""
        if not self.status:
            self.status = message["status"]
            self.head = message
        else:
            self._sent += len(message.get("body", b""))
        return self._send(message)

    def end(self) -> None:
        """It is over, well or not."""
        self._traffic.ended(self)

    def fields(self, status: int, took: float) -> dict[str, object]:
        """What the log says."""
        fields: dict[str, object] = {
            "logger": "tokenplace.relay",
            "http_method": self._scope["method"],
            "http_route": self.route.value,
            "http_status": status,
            "duration_ms": round(took * 1000),
            "size": rounded(self.size),
        }
        if name := self._name():
            fields["request_id"] = name
        trace = header(self._scope, b"traceparent")
        found = _TRACEPARENT.fullmatch(trace) if trace else None
        if found is not None and set(found[1]) != {"0"}:
            fields["trace_id"] = found[1]
        return fields

    def _name(self) -> str:
        """The request's name as the answer tells it; one that could be a sentence is not repeated."""
        for key, value in self.head.get("headers", ()):
            if key == b"x-request-id" and _NAME.fullmatch(value):
                return str(value.decode("ascii"))
        return ""


def rounded(size: int) -> int:
    """A size as it may be told: the next power of two, from 1 KiB on."""
    return 0 if not size else 1 << max(10, (size - 1).bit_length())

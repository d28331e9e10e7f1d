"""The status page's routes: a request in, a response out. Counts only, no word of anybody.

Who may ask: the `Host` must name this machine as the page was opened (a page of another name that resolves to here is
turned away). Who may pause and resume: only this machine, and only with the header below, which no page of another
origin can send without being asked first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol
from urllib.parse import urlsplit

from tokenplace.node.http import Request, Response
from tokenplace.node.page import PAGE, page
from tokenplace.node.resources import Power, Resources
from tokenplace.node.standing import Report
from tokenplace.node.targets import is_here

CONTROL = "x-tokenplace-control"
"""The header that must be there to pause or resume; its value does not matter."""

_PLAIN_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_QUIET = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_CSP = (
    f"default-src 'none'; script-src '{PAGE.script}'; style-src '{PAGE.style}'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAUSED_BY_HAND = "by its owner's hand."


class Watched(Protocol):
    """The node, as far as its status page reaches."""

    def report(self) -> Report:
        """How it stands."""

    def pause(self, reason: str) -> None:
        """Take no new work."""

    def resume(self) -> None:
        """Take work again."""


class StatusPage:
    """Answers what is asked at the status port. `host` is where it listens."""

    def __init__(
        self, node: Watched, host: str, resources: Callable[[], Resources], power: Callable[[], Power]
    ) -> None:
        self._node = node
        self._host = host.lower()
        self._resources = resources
        self._power = power
        self._shown: Mapping[str, Callable[[], Response]] = {
            "/": self._page,
            "/health": self._health,
            "/metrics": self._metrics,
            "/metrics/resource": lambda: _json(self._resources().fields()),
            "/status.json": self._status,
        }
        self._told: Mapping[str, Callable[[], None]] = {
            "/pause": lambda: self._node.pause(_PAUSED_BY_HAND),
            "/resume": self._node.resume,
        }

    def answer(self, request: Request) -> Response:
        """Never raises."""
        if not self._named(request.headers.get("host", "")):
            return _refusal(
                HTTPStatus.MISDIRECTED_REQUEST, "This page answers to its own name only.", code="wrong_host"
            )
        if request.path in self._told:
            return self._control(request)
        shown = self._shown.get(request.path)
        if shown is None:
            return _refusal(HTTPStatus.NOT_FOUND, "There is nothing here.", code="not_found")
        if request.method not in ("GET", "HEAD"):
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "This can only be read (GET).", code="method_not_allowed")
        return shown()

    def fields(self) -> dict[str, object]:
        """What `/status.json` shows."""
        power = self._power()
        return {**self._node.report().fields(), "power": {"watts": power.watts, "source": power.source}}

    def _control(self, request: Request) -> Response:
        if request.method != "POST":
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Ask with POST.", code="method_not_allowed")
        host = request.headers.get("host")
        own = request.headers.get("origin") in (None, f"http://{host}", f"https://{host}")
        if not (own and CONTROL in request.headers and _loopback(request.peer)):
            return _refusal(
                HTTPStatus.FORBIDDEN,
                f"Pausing and resuming take a request from this very machine with the header {CONTROL}.",
                code="not_yours",
            )
        self._told[request.path]()
        return self._status()

    def _named(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if is_here(name) or name == self._host:
            return True
        mine, asked = _address(self._host), _address(name)
        return mine is not None and mine.is_unspecified and asked is not None

    def _page(self) -> Response:
        return Response(
            HTTPStatus.OK, page(self.fields()), "text/html; charset=utf-8", {**_QUIET, "content-security-policy": _CSP}
        )

    def _status(self) -> Response:
        return _json(self.fields())

    def _health(self) -> Response:
        report = self._node.report()
        return _json({"status": "ok", "version": report.version, "mock_mode": report.mock})

    def _metrics(self) -> Response:
        return Response(HTTPStatus.OK, metrics(self._node.report()).encode(), _PLAIN_METRICS, _QUIET)


def metrics(report: Report) -> str:
    """The report for Prometheus. No label comes from outside: relays are told apart by how many stand how."""
    lines: list[str] = []

    def add(name: str, kind: str, text: str, values: Mapping[str, float]) -> None:
        lines.append(f"# HELP tokenplace_node_{name} {text}")
        lines.append(f"# TYPE tokenplace_node_{name} {kind}")
        lines.extend(f"tokenplace_node_{name}{labels} {value:g}" for labels, value in values.items())

    ended = {"done": report.done, "failed": report.failed, "cancelled": report.cancelled}
    add("jobs_total", "counter", "Answers that ended.", {f'{{outcome="{key}"}}': n for key, n in ended.items()})
    add("jobs_running", "gauge", "Answers being given.", {"": report.running})
    tokens = {"prompt": report.prompt_tokens, "completion": report.tokens}
    add("tokens_total", "counter", "Tokens read and made.", {f'{{kind="{key}"}}': n for key, n in tokens.items()})
    add("tokens_per_second", "gauge", "Tokens per second at this moment.", {"": report.tokens_per_second})
    add("answering_seconds_total", "counter", "Time that people were answered.", {"": report.people_hours * 3600})
    add("slots", "gauge", "Answers it takes at once.", {"": report.slots})
    states = {
        state: sum(relay.state == state for relay in report.relays) for state in ("connected", "dialling", "waiting")
    }
    add("relays", "gauge", "Relays by how the link stands.", {f'{{state="{key}"}}': n for key, n in states.items()})
    results = {result: report.classic.get(result, 0) for result in ("opened", "refused", "pkcs1v15")}
    labelled = {f'{{result="{key}"}}': n for key, n in results.items()}
    add(
        "classic_requests_total",
        "counter",
        "Requests of the original's protocol; pkcs1v15 are of the opened.",
        labelled,
    )
    add("paused", "gauge", "Whether it takes no work on purpose.", {"": float(report.standing == "paused")})
    add("uptime_seconds", "gauge", "Time since its start.", {"": report.uptime_s})
    return "\n".join(lines) + "\n"


def _json(content: object) -> Response:
    return Response(HTTPStatus.OK, json.dumps(content).encode(), "application/json", _QUIET)


def _refusal(status: HTTPStatus, message: str, *, code: str) -> Response:
    shape = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return Response(status, json.dumps(shape).encode(), "application/json", _QUIET)


def _loopback(peer: str) -> bool:
    address = _address(peer.partition("%")[0])
    return address is not None and (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None

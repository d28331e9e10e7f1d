"""How the relay and its nodes are, for its operator alone: no content, no client's address, no invitation."""

from __future__ import annotations

import hmac
import os
import platform
from collections import Counter
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tokenplace.errors import Refused
from tokenplace.relay.address import client_address
from tokenplace.relay.admission import Admission
from tokenplace.relay.asgi import Scope, header
from tokenplace.relay.broker import Broker
from tokenplace.relay.guesses import Guesses
from tokenplace.relay.limits import Limiter
from tokenplace.relay.roster import Node

_SHOWN_NODES = 1000


class Operator:
    """Who may look: whoever shows the operator's token, and has not guessed too often at it."""

    def __init__(self, token: str | None, guesses: Guesses) -> None:
        self._token = token.encode() if token else None
        self._guesses = guesses

    def check(self, scope: Scope) -> None:
        """Raises Refused: 503 where no token is set, 401 for another one, 429 after too many of them.

        The comparison's time tells nothing.
        """
        if self._token is None:
            raise Refused(
                "This relay has no operator's token; set TOKEN_PLACE_OPERATOR_TOKEN where it runs.",
                code="operator_auth_not_configured",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
            )
        given = header(scope, b"x-token-place-operator")
        if given is None:
            scheme, _, given = (header(scope, b"authorization") or "").partition(" ")
            given = given if scheme.lower() == "bearer" else ""
        client, given = client_address(scope), given.strip()
        if given:
            self._guesses.check(client)
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self._token):
            if given:
                self._guesses.wrong(client, given)
            raise Refused(
                "Send the operator's token as `X-Token-Place-Operator: TOKEN` or `Authorization: Bearer TOKEN`.",
                code="operator_token_invalid",
                status=HTTPStatus.UNAUTHORIZED,
            )


def report(broker: Broker, admission: Admission, limiter: Limiter, *, now: float, started: float) -> dict[str, object]:
    """Everything that can be told of this relay, ready for JSON."""
    nodes = list(broker.roster)
    steps = Counter(ticket.job.step.value for ticket in broker.tickets.values())
    return {
        "versions": _versions(),
        "uptime_s": round(now - started),
        "draining": broker.draining,
        "memory": {"resident_bytes": _resident(), "waiting_requests_bytes": broker.held_bytes},
        "jobs": {"live": dict(steps), "ended": dict(broker.counts.outcomes), "refused": dict(broker.counts.refusals)},
        "limits": {"used_up": dict(limiter.refused), "budgets": _budgets(limiter)},
        "admission": {
            "by_invitation": admission.by_invitation,
            "links": admission.open_links,
            "turned_away": dict(admission.refused),
        },
        "nodes": [_node(node, now) for node in nodes[:_SHOWN_NODES]],
        "nodes_total": len(nodes),
    }


def _node(node: Node, now: float) -> dict[str, object]:
    end = node.end
    state = "away" if end is None else "draining" if node.draining else "listed" if node.listed else "resting"
    return {
        "node": node.id,
        "state": state,
        "breaker": node.standing.breaker.state.value,
        "models": [model.id for model in node.card.body.models],
        "slots": node.slots,
        "free": max(0, node.free),
        "queued": len(node.queue),
        "running": len(node.active),
        "waiting_for_return": len(node.severed),
        "answered": node.standing.answered,
        "seconds_per_job": round(node.standing.seconds_per_job, 2),
        "bytes_per_second": round(node.standing.bytes_per_second),
        "rtt_ms": round(node.rtt * 1000, 1) if node.rtt is not None else None,
        "connected_s": round(now - node.since),
        "last_heard_s": round(now - end.last_heard, 1) if end is not None else None,
    }


def _budgets(limiter: Limiter) -> dict[str, list[str]]:
    return {budget.value: [str(window) for window in windows] for budget, windows in limiter.budgets.items() if windows}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("tokenplace", "uvicorn", "websockets"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _resident() -> int | None:
    """Resident memory now, where the system tells it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None

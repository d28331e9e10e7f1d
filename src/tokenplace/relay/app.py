"""The relay as one ASGI application."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus

import structlog

from tokenplace.errors import Refused
from tokenplace.relay.asgi import App, Receive, Scope, Send, marked, respond, respond_error, respond_json
from tokenplace.relay.broker import Broker
from tokenplace.relay.http import JobsDoor
from tokenplace.relay.links import NodesDoor, Verifier
from tokenplace.relay.metrics import CONTENT_TYPE, Metrics
from tokenplace.relay.roster import Node
from tokenplace.wire import routes

_TICK = 0.5
_SHOWN_NODES = 1000
_log = structlog.get_logger("tokenplace.relay")


class Relay:
    """Routes requests. What it does not know goes to `guest` (a hosted gateway), if there is one.

    `verify` checks Ed25519 signatures of nodes; `names` are the host names this relay answers to, in place of the one
    in the request; `tokens` are the invitations, none meaning that every node may serve. `counts` gives the guest's
    own lines for /metrics.
    """

    def __init__(
        self,
        broker: Broker,
        verify: Verifier,
        *,
        names: Sequence[str] = (),
        tokens: Sequence[str] = (),
        guest: App | None = None,
        counts: Callable[[], bytes] = bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.broker = broker
        self._clock = clock
        self._guest = guest or nothing_here
        self._metrics = Metrics(broker, counts)
        self._jobs = JobsDoor(broker, clock)
        self._links = NodesDoor(broker, clock, verify, names=names, tokens=tokens)
        self._own: dict[str, Callable[[Send], Awaitable[None]]] = {
            routes.LIVEZ: self._alive,
            routes.HEALTHZ: self._health,
            routes.METRICS: self._measure,
            routes.SERVER_NODES: self._server_nodes,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "websocket":
                if scope["path"] == routes.LINK:
                    await self._links(scope, receive, send)
                else:
                    await send({"type": "websocket.close", "code": 4004})
            case "http":
                await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        own = self._own.get(path) if scope["method"] in ("GET", "HEAD") else None
        if path == routes.NODES or path.startswith(routes.JOBS):
            await self._jobs(scope, receive, send)
        elif own is not None:
            await own(marked(scope, send))
        else:
            await self._guest(scope, receive, send)

    async def _alive(self, send: Send) -> None:
        await respond_json(send, HTTPStatus.OK, {"status": "alive"})

    async def _measure(self, send: Send) -> None:
        await respond(send, HTTPStatus.OK, self._metrics.render(), CONTENT_TYPE)

    async def _health(self, send: Send) -> None:
        known = len(self.broker.roster)
        content: dict[str, object] = {"status": "ok", "knownServers": known}
        if not known:
            content["details"] = {"knownServers": "empty"}
        status, extra = HTTPStatus.OK, []
        if self.broker.draining:
            content["status"] = "draining"
            status, extra = HTTPStatus.SERVICE_UNAVAILABLE, [(b"retry-after", b"1")]
        await respond_json(send, status, content, extra)

    async def _server_nodes(self, send: Send) -> None:
        """Who is really connected, in the original's shape with what it lacked."""
        alive = [node for node in self.broker.roster if node.end is not None][:_SHOWN_NODES]
        ids = [node.id for node in alive]
        await respond_json(
            send,
            HTTPStatus.OK,
            {
                "configured_servers": ids,
                "primary": ids[0] if ids else None,
                "secondary": ids[1:],
                "total": len(ids),
                "nodes": [_shown(node, self._clock()) for node in alive],
            },
        )

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(self._tick())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            ticking.cancel()
        self.broker.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self.broker.tick(self._clock())

    async def drain(self) -> None:
        """Take no new work, tell the nodes, and wait for open streams to end, at most the drain time."""
        self.broker.drain()
        _log.info("relay.draining", streams=len(self.broker.tickets))
        deadline = self._clock() + self.broker.timing.drain
        while self.broker.tickets and self._clock() < deadline:  # noqa: ASYNC110 - the broker has no events
            await asyncio.sleep(0.05)
        self.broker.stop()
        for node in self.broker.roster:
            node.close("relay stopped")


async def nothing_here(scope: Scope, _: Receive, send: Send) -> None:
    """What a blind relay answers where it has nothing; programs that speak plain OpenAI are shown to a gateway."""
    await respond_error(marked(scope, send), _nothing_at(scope["path"]))


def _nothing_at(path: str) -> Refused:
    if path.startswith(("/v1/", "/v2/", "/api/")):
        return Refused(
            "This relay is blind and reads no plain requests. Run `tokenplace gateway --relay ADDRESS` with this "
            "relay's address on your own machine and point your program there.",
            code="blind_relay",
            status=HTTPStatus.FORBIDDEN,
        )
    return Refused("There is nothing here.", code="not_found", status=HTTPStatus.NOT_FOUND)


def _shown(node: Node, now: float) -> dict[str, object]:
    return {
        "node": node.id,
        "models": [model.id for model in node.card.body.models],
        "slots": node.slots,
        "free": max(0, node.free),
        "queued": len(node.queue),
        "draining": node.draining,
        "connected_s": round(now - node.since),
        "last_heard_s": round(now - node.end.last_heard, 1) if node.end else None,
        "rtt_ms": round(node.rtt * 1000, 1) if node.rtt is not None else None,
        "answered": node.answered,
    }

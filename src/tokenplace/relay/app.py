"""The relay as one ASGI application."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import islice

import structlog
from prometheus_client.core import Metric

from tokenplace.errors import Refused
from tokenplace.relay.address import CLIENT_KEY, Client
from tokenplace.relay.admission import Admission, Verifier
from tokenplace.relay.asgi import (
    STREAMS,
    App,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    WrongMethod,
    header,
    marked,
    respond,
    respond_error,
    respond_json,
)
from tokenplace.relay.broker import Broker
from tokenplace.relay.classic.http import ClassicDoor
from tokenplace.relay.classic.metrics import ClassicCollector
from tokenplace.relay.classic.room import ClassicRoom
from tokenplace.relay.diagnostics import Operator, report
from tokenplace.relay.guesses import Guesses
from tokenplace.relay.http import JobsDoor
from tokenplace.relay.limits import Budget, RateLimited
from tokenplace.relay.links import NodesDoor
from tokenplace.relay.metrics import CONTENT_TYPE, Metrics
from tokenplace.relay.policy import Policy
from tokenplace.relay.polled import PolledLinks
from tokenplace.relay.replicas.courier import Courier
from tokenplace.relay.replicas.metrics import PeeringCollector
from tokenplace.relay.replicas.presence import Remote
from tokenplace.relay.roster import Node
from tokenplace.relay.switchboard import Switchboard
from tokenplace.relay.traffic import COUNTED, Traffic, route_of
from tokenplace.wire import routes
from tokenplace.wire.messages import Closed

_TICK = 0.5
_STOOD_STILL = 3.0
"""Seconds between two ticks from which on it was this machine that was silent, and not the nodes."""

_LOOK_AGAIN = 2.0
"""Seconds until a changed file of the operator's counts for links that are open already."""

_SHOWN_NODES = 1000
_log = structlog.get_logger("tokenplace.relay")


class Relay:
    """Routes requests. What it does not know goes to `guest` (a hosted gateway), if there is one.

    `verify` checks Ed25519 signatures of nodes; `names` are the host names this relay answers to, in place of the one
    in the request; `tokens` are invitations, none (here and in the policy's file) meaning that every node may serve.
    `counts` gives the guest's own lines for /metrics; `about` is what /healthz says of this build.
    `policy` is what else the operator decided. A relay of several replicas has a `board` that knows the others, and
    the `courier` that speaks with them. Raises TokenPlaceError when a file that the policy names cannot be
    read.
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
        policy: Policy | None = None,
        about: Mapping[str, str] | None = None,
        board: Switchboard | None = None,
        courier: Courier | None = None,
    ) -> None:
        self.broker = broker
        self._board = board or Switchboard(broker, clock)
        self._courier = courier
        self._clock = clock
        self._started = clock()
        self._guest = guest or nothing_here
        self._about = dict(about or {})
        self._policy = policy = policy or Policy()
        self._limiter = policy.limiter
        guesses = Guesses(clock, self._limiter.refused)
        self._admission = Admission(
            verify,
            names=names,
            tokens=tokens,
            invitations=policy.invitations,
            denied=policy.denied,
            links_per_address=policy.links_per_address,
            guesses=guesses,
        )
        self._operator = Operator(policy.operator_token, guesses)
        self._traffic = Traffic(clock, policy.access_log)
        self._metrics = Metrics(broker, counts, self._traffic, self._admission, self._limiter)
        if self._board.peering is not None:
            self._metrics.add(PeeringCollector(self._board.peering))
        self._jobs = JobsDoor(self._board, self._limiter)
        self._room = ClassicRoom(broker, clock)
        self._classic = ClassicDoor(self._room, clock, self._admission.admit_poller)
        self._metrics.add(ClassicCollector(self._room, clock))
        self._links = NodesDoor(broker, clock, self._admission, self._limiter)
        self._polled = PolledLinks(self._links.counted, clock, self._limiter, places=policy.links_per_address)
        self._proxy_missed = False
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
                self._policy.proxies.mark(scope)
                if scope["path"] == routes.LINK:
                    await self._links(scope, receive, send)
                else:
                    await send({"type": "websocket.close", "code": Closed.NO_LINK})
            case "http":
                await self._watched(scope, receive, send)

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who asks and for what, count it, and answer."""
        client = self._policy.proxies.mark(scope)
        CLIENT_KEY.set(client.key)
        route = route_of(scope["method"], scope["path"])
        exchange = self._traffic.watch(scope, send, route)
        try:
            answer: Send = exchange.send
            if route in COUNTED:
                try:
                    answer = await self._allowed(scope, client, answer)
                except RateLimited as error:
                    await _respond_limited(scope, answer, error)
                    return
            await self._http(scope, receive, answer)
        except Exception:
            exchange.status = exchange.status or 500  # the server answers it, and complains
            raise
        finally:
            exchange.end()

    async def _allowed(self, scope: Scope, client: Client, send: Send) -> Send:
        """Count the request; gives a `send` that tells the client where it stands. Raises RateLimited."""
        given = header(scope, b"authorization")
        key = self._policy.holder(given) if given else None
        if key is not None:
            CLIENT_KEY.set(key)
        if client.through_a_proxy and not self._proxy_missed:
            self._tell_of_a_proxy()

        async def begin_stream() -> None:
            await self._limiter.hit(Budget.STREAMS, client, key)

        scope["state"][STREAMS] = begin_stream
        standing = await self._limiter.hit(Budget.REQUESTS, client, key)
        return send if standing is None else _with(standing.headers(), send)

    def _tell_of_a_proxy(self) -> None:
        """Say once that many clients look like one, because a proxy is not declared."""
        self._proxy_missed = True
        _log.warning(
            "relay.proxy_not_declared",
            advice="a proxy on this machine or network passes clients on; name its address in "
            "TOKEN_PLACE_TRUSTED_PROXIES (127.0.0.1 for this machine), or limits cannot tell them apart",
        )

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        own = self._own.get(path)
        if scope["method"] in ("POST", "PUT", "PATCH", "DELETE") and (own is not None or path == routes.DIAGNOSTICS):
            await respond_error(marked(scope, send), WrongMethod("GET, HEAD"))
        elif path in (routes.NODES, routes.JOBS) or path.startswith(routes.JOBS + "/"):
            await self._jobs(scope, receive, send)
        elif path == routes.LINK or path.startswith(routes.LINK + "/"):
            await self._polled(scope, receive, marked(scope, send))
        elif own is not None and scope["method"] in ("GET", "HEAD"):
            await own(marked(scope, send))
        elif path in self._classic:
            await self._classic(scope, receive, send)
        elif path == routes.DIAGNOSTICS and scope["method"] in ("GET", "HEAD"):
            await self._diagnose(scope, marked(scope, send))
        else:
            await self._guest(scope, receive, send)

    async def _diagnose(self, scope: Scope, send: Send) -> None:
        try:
            self._operator.check(scope)
        except Refused as error:
            await respond_error(send, error)
            return
        told = report(self.broker, self._admission, self._limiter, now=self._clock(), started=self._started)
        await respond_json(send, HTTPStatus.OK, told)

    async def _alive(self, send: Send) -> None:
        await respond_json(send, HTTPStatus.OK, {"status": "alive"})

    async def _measure(self, send: Send) -> None:
        await respond(send, HTTPStatus.OK, self._metrics.render(), CONTENT_TYPE)

    async def _health(self, send: Send) -> None:
        known = self._board.known + self._room.servers(self._clock())
        content: dict[str, object] = {"status": "ok", "knownServers": known, **self._board.health(), **self._about}
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
        elsewhere = list(islice(self._board.remotes(), _SHOWN_NODES - len(alive)))
        ids = [*(node.id for node in alive), *(node.id for node in elsewhere)]
        await respond_json(
            send,
            HTTPStatus.OK,
            {
                "configured_servers": ids,
                "primary": ids[0] if ids else None,
                "secondary": ids[1:],
                "total": len(ids),
                "nodes": [*(_shown(node, self._clock()) for node in alive), *map(_shown_elsewhere, elsewhere)],
            },
        )

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._admission.announce()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._tick()),
                group.create_task(self._look_again()),
                group.create_task(self._polled.run()),
            ]
            if self._courier is not None:
                tasks.append(group.create_task(self._courier.run()))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            for task in tasks:
                task.cancel()
        self.broker.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _tick(self) -> None:
        before = self._clock()
        while True:
            await asyncio.sleep(_TICK)
            now = self._clock()
            if now - before > _STOOD_STILL:
                self.broker.overslept(now - before)
            before = now
            self.broker.tick(now)
            self._room.tick(self._clock())

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AGAIN)
            self._links.look_again()

    def reread(self) -> None:
        """Look now whether the operator's files have changed, and say how the door stands."""
        self._links.look_again()
        _log.info("relay.reread")
        self._admission.announce()

    def metrics(self) -> Iterator[Metric]:
        """What /metrics shows of this relay; for the reference, which is made of it."""
        return self._metrics.families()

    async def drain(self) -> None:
        """Take no new work, tell the nodes, and wait for open streams to end, at most the drain time."""
        self.broker.drain()
        _log.info("relay.draining", streams=len(self.broker.tickets))
        began = self._clock()
        deadline = began + self.broker.timing.drain
        self._room.drain(self._clock())
        while self._busy() and self._clock() < deadline:
            if self._board.others:
                self._send_away(began)
            await asyncio.sleep(0.05)
        self._room.stop(self._clock())
        self.broker.stop(quietly=self._board.others > 0)
        for node in self.broker.roster:
            node.close("relay stopped")

    def _send_away(self, since: float) -> None:
        """Nodes that do nothing here any more go to another replica now, not when the last stream ends."""
        for node in self.broker.roster:
            if node.end is not None and node.since <= since and not (node.active or node.severed):
                node.close("relay stopped")

    def _busy(self) -> bool:
        """Whether an answer is under way, or lies where its reader will fetch it in a moment."""
        return self._board.busy or self._room.busy(self._clock())


def _with(headers: Headers, send: Send) -> Send:
    """A `send` that adds headers to the head of the answer."""

    def with_headers(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        return send(message)

    return with_headers


async def _respond_limited(scope: Scope, send: Send, error: RateLimited) -> None:
    await respond_error(marked(scope, _with(error.standing.headers(), send)), error)


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
        "answered": node.standing.answered,
        "breaker": node.standing.breaker.state.value,
        "here": True,
    }


def _shown_elsewhere(node: Remote) -> dict[str, object]:
    """A node that another replica of this relay holds."""
    load = node.load
    return {
        "node": node.id,
        "models": [model.id for model in node.card.body.models],
        "slots": load.slots,
        "free": load.free,
        "queued": load.queued,
        "draining": not load.takes,
        "here": False,
    }

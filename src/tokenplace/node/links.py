"""A node's links: dialled, held and dialled again, with the pump between a WebSocket and the link's state machine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidURI

from tokenplace.errors import LinkError
from tokenplace.link.ends import NodeEnd
from tokenplace.link.events import Cancelled, Challenged, Drained, Granted, NodeEvent, Offered, Rewound, Welcomed
from tokenplace.node.polled import LinkClosed, PolledSocket, open_polled
from tokenplace.node.runs import Runs
from tokenplace.node.standing import LinkStep, RelayState
from tokenplace.sealing.identity import Identity
from tokenplace.wire import routes
from tokenplace.wire.address import relay_address
from tokenplace.wire.card import Card
from tokenplace.wire.limits import MAX_MESSAGE, Timing
from tokenplace.wire.messages import Closed, Hello, Status

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
"""Seconds between two attempts at one relay."""
_BY_POLLING = "by polling, because no WebSocket is let through"
_POLLED_FOR = 600.0
"""Seconds after which a polled link that broke is tried as a WebSocket again."""
_LOOK = 0.5
"""Seconds between two looks at whether a relay still speaks."""

_log = structlog.get_logger("tokenplace.node")


def link_url(relay: str) -> tuple[str, str]:
    """The WebSocket address of a relay's base URL, and the authority that the node signs. Raises WireError."""
    parts = relay_address(relay)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    default = 443 if secure else 80
    authority = host if (parts.port or default) == default else f"{host}:{parts.port}"
    return f"{'wss' if secure else 'ws'}://{authority}{parts.path}{routes.LINK}", authority


Socket = ClientConnection | PolledSocket


def _websocket(url: str) -> connect:
    return connect(url, compression=None, max_size=MAX_MESSAGE, ping_interval=None, close_timeout=1, open_timeout=10)


def _ending(closed: ConnectionClosed | LinkClosed) -> tuple[int, str]:
    """Why the relay closed a link: its number and its words."""
    if isinstance(closed, LinkClosed):
        return closed.code, closed.reason
    return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (0, "")


class Links:
    """One outgoing link to every relay, and what comes over it handed to the runs.

    `card` gives the card as it is now: who welcomed us before it changed is shown the new one.
    """

    def __init__(
        self,
        runs: Runs,
        *,
        identity: Identity,
        card: Callable[[], Card],
        token: str | None,
        timing: Timing,
        clock: Callable[[], float],
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        self._runs = runs
        self._identity = identity
        self._card = card
        self._token = token
        self._timing = timing
        self._clock = clock
        self._renew = renew
        self._up: set[NodeEnd] = set()
        self._shown: dict[NodeEnd, Card] = {}
        """What each relay was shown that has not welcomed us yet."""

    def drain(self) -> None:
        """Tell every relay that no new jobs are taken."""
        for end in self._up:
            end.drain()

    def show_card(self) -> None:
        """Give every relay our card as it is now."""
        for end in self._up:
            self._show(end)

    async def stay(self, relay: RelayState) -> None:
        """Keep one relay until cancelled, with pauses that grow while it will not have us."""
        pause = _FIRST_PAUSE
        url, authority = link_url(relay.url)
        polled = False
        """Whether the next attempt is made by polling: a WebSocket was not let through."""
        while True:
            began = self._clock()
            self._note(relay, LinkStep.DIALLING)
            least, superseded = 0.0, False
            by_polling, polled = polled, False
            try:
                async with open_polled(relay.url) if by_polling else _websocket(url) as socket:
                    await self._speak(relay, socket, authority, _BY_POLLING if by_polling else "")
                detail = "the relay closed the link"
            except (ConnectionClosed, LinkClosed) as closed:
                code, reason = _ending(closed)
                detail = reason or "the connection broke"
                if code == Closed.SUPERSEDED:
                    detail = "another node serves under this one's identity; stop one of the two"
                    least, superseded = 60.0, True
                elif code == Closed.NOT_ADMITTED:
                    least = 15.0
            except (InvalidProxy, ImportError) as error:
                detail = f"the proxy of this machine cannot be used ({error})"
            except (InvalidHandshake, InvalidURI) as error:
                detail = f"no relay answers there ({error})"
                polled = not by_polling
            except UnicodeError:  # a relay may send us on to such a name
                detail = "its name is none that can be looked up"
            except (OSError, TimeoutError) as error:
                detail = f"cannot be reached ({type(error).__name__})"
                polled = isinstance(error, TimeoutError) and not by_polling
            except LinkError as error:
                detail = error.message
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError  # a TaskGroup whose child fails in that very moment forgets it
            lasted = self._clock() - began
            if by_polling and relay.step is LinkStep.CONNECTED and lasted < _POLLED_FOR:
                polled = True  # it worked a moment ago, and answers wait for this node's return
            if lasted > 10.0:
                pause = _FIRST_PAUSE
            self._note(relay, LinkStep.WAITING, detail)
            await asyncio.sleep(max(least, pause) * random.uniform(0.7, 1.3))  # noqa: S311 - spreads the herd
            if superseded:
                self._renew()  # whoever took our place has shown a newer card than ours, with keys that we do not hold
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _speak(self, relay: RelayState, socket: Socket, authority: str, news: str) -> None:
        output = asyncio.Event()
        end = NodeEnd(output.set)
        end.last_heard = self._clock()
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(_write(end, output, socket))
                watch = group.create_task(self._watch(end))
                async for message in socket:
                    if isinstance(message, str):
                        raise LinkError("The link speaks binary messages.")
                    now = self._clock()
                    for event in end.receive(message, now):
                        self._handle(relay, end, event, authority, now)
                        if news and relay.step is LinkStep.CONNECTED:
                            self._note(relay, LinkStep.CONNECTED, news)
                            news = ""
                writer.cancel()
                watch.cancel()
        except* (ConnectionClosed, LinkClosed, LinkError, OSError) as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self._up.discard(end)
            self._shown.pop(end, None)
            self._runs.link_lost(end, self._clock())

    async def _watch(self, end: NodeEnd) -> None:
        """A relay that went silent is gone, whatever TCP believes (a suspended machine, a lost route)."""
        while True:
            await asyncio.sleep(_LOOK)
            now = self._clock()
            if now - end.last_heard >= self._timing.silence:
                raise LinkError("The relay went silent.")
            if end in self._up and now - max(end.last_heard, end.last_pinged) >= self._timing.heartbeat:
                end.ping(now)

    def _handle(self, relay: RelayState, end: NodeEnd, event: NodeEvent, authority: str, now: float) -> None:
        match event:
            case Challenged(nonce=nonce):
                card = self._card()
                signature = self._identity.sign_hello(nonce, authority)
                end.hello(Hello(card, signature, authority, self._runs.slots, self._token))
                self._shown[end] = card
            case Welcomed():
                self._up.add(end)
                self._runs.link_up(end)
                if self._shown.pop(end, None) is not self._card():
                    self._show(end)  # keys changed while the relay was looking at the former card
                self._note(relay, LinkStep.CONNECTED)
                _log.info("link.up", relay=relay.url)
            case Offered():
                self._runs.offered(end, event, now)
            case Rewound():
                self._runs.rewound(end, event, now)
            case Granted(sid=sid, total=total):
                self._runs.granted(end, sid, total, now)
            case Cancelled(sid=sid):
                self._runs.cancelled(end, sid)
            case Drained():
                relay.draining = True
                self._note(relay, LinkStep.CONNECTED, "the relay is shutting down")

    def _show(self, end: NodeEnd) -> None:
        told = self._runs.status()
        end.status(Status(told.slots, told.free, self._card()))

    def _note(self, relay: RelayState, step: LinkStep, detail: str = "") -> None:
        if (relay.step, relay.detail) != (step, detail):
            if detail and step is LinkStep.CONNECTED:
                _log.info("link.news", relay=relay.url, news=detail)
            elif detail and detail != relay.told:  # the same reason again and again is told once
                _log.warning("link.down", relay=relay.url, reason=detail)
                relay.told = detail
            if LinkStep.CONNECTED in (relay.step, step) and relay.step is not step:
                relay.since = self._clock()
            relay.step, relay.detail = step, detail or (relay.detail if step is LinkStep.DIALLING else "")
        if step is LinkStep.CONNECTED:
            relay.told = ""
        else:
            relay.draining, relay.demand = False, None


async def _write(end: NodeEnd, output: asyncio.Event, socket: Socket) -> None:
    while True:
        await output.wait()
        output.clear()
        while message := end.take():
            await socket.send(message)

from __future__ import annotations

import asyncio
import json
import struct

from tokenplace.relay.app import Relay
from tokenplace.relay.asgi import Receive, Scope, Send, respond_json
from tokenplace.wire import routes
from tokenplace.wire.frames import FrameKind, pack_frame
from tokenplace.wire.messages import Outcome
from unit.relay.desk import Desk, outcome, running
from unit.relay.fake_time import now, run
from unit.relay.web import ask


def here() -> Desk:
    desk = Desk()
    desk.now = now()
    return desk


def a_relay(desk: Desk, guest: bool = False) -> Relay:
    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        await respond_json(send, 200, {"guest": scope["path"]})

    return Relay(desk.broker, lambda *_: True, guest=gateway if guest else None, clock=now)


def test_health_tells_whether_anybody_is_connected() -> None:
    async def main() -> None:
        desk = here()
        reply = await ask(a_relay(desk), "GET", routes.HEALTHZ)
        assert reply.json() == {"status": "ok", "knownServers": 0, "details": {"knownServers": "empty"}}
        desk.node()
        assert (await ask(a_relay(desk), "GET", routes.HEALTHZ)).json() == {"status": "ok", "knownServers": 1}

    run(main)


def test_the_node_list_keeps_the_original_s_shape() -> None:
    async def main() -> None:
        desk = here()
        first, second = desk.node(1), desk.node(2)
        fields = (await ask(a_relay(desk), "GET", routes.SERVER_NODES)).json()
        assert fields["configured_servers"] == [first.id, second.id]
        assert (fields["primary"], fields["secondary"], fields["total"]) == (first.id, [second.id], 2)
        first.break_link()
        fields = (await ask(a_relay(desk), "GET", routes.SERVER_NODES)).json()
        assert (fields["primary"], fields["total"]) == (second.id, 1)

    run(main)


def test_no_node_can_make_the_node_list_unreadable() -> None:
    def no_constant(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    async def main() -> None:
        desk = here()
        node = desk.node()
        for sent in (float("inf"), float("-inf"), float("nan"), -1e308, 1e308):
            pong = pack_frame(FrameKind.PONG, struct.pack(">d", sent))
            for event in node.relay_end.receive(pong, desk.now):
                desk.broker.handle(node.node, node.relay_end, event, desk.now)
            reply = await ask(a_relay(desk), "GET", routes.SERVER_NODES)
            json.loads(reply.body, parse_constant=no_constant)

    run(main)


def test_metrics_tell_counts_and_name_nobody() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node)
        node.finish(sid, 1)
        waiting = desk.submit(node.id)
        reply = await ask(a_relay(desk), "GET", routes.METRICS)
        text = reply.body.decode()
        assert 'tokenplace_relay_jobs_total{outcome="done"} 1.0' in text
        assert 'tokenplace_relay_jobs_live{step="offered"} 1.0' in text
        assert "tokenplace_relay_nodes 1.0" in text
        for secret in (node.id, ticket.job.id, waiting.job.id):
            assert secret not in text

    run(main)


def test_what_the_relay_does_not_know_is_the_guest_s() -> None:
    async def main() -> None:
        relay = a_relay(here(), guest=True)
        assert (await ask(relay, "GET", "/v1/models")).json() == {"guest": "/v1/models"}
        assert (await ask(relay, "GET", routes.LIVEZ)).json() == {"status": "alive"}
        assert "nodes" in (await ask(relay, "GET", routes.NODES)).json()

    run(main)


def test_the_request_id_of_the_caller_comes_back_and_is_bounded() -> None:
    async def main() -> None:
        relay = a_relay(here())
        reply = await ask(relay, "GET", routes.LIVEZ, headers=[("x-request-id", "mine")])
        assert reply.headers["x-request-id"] == "mine"
        reply = await ask(relay, "GET", routes.LIVEZ, headers=[("x-request-id", "a" * 5000)])
        assert len(reply.headers["x-request-id"]) == 128
        assert len((await ask(relay, "GET", routes.LIVEZ)).headers["x-request-id"]) == 16

    run(main)


def test_draining_waits_for_open_answers_and_then_closes_the_links() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node)
        asyncio.get_running_loop().call_later(3, node.finish, sid, 1)
        began = now()
        await a_relay(desk).drain()
        assert outcome(ticket) == Outcome.DONE
        assert 2.9 < now() - began < 3.2
        assert node.closed == ["relay stopped"]

    run(main)


def test_draining_has_an_end() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, _ = running(desk, node)
        began = now()
        await a_relay(desk).drain()
        assert outcome(ticket) == Outcome.RELAY_STOPPED
        assert now() - began <= desk.broker.timing.drain + 0.1

    run(main)


def test_time_ticks_while_the_server_lives_and_everything_ends_with_it() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, _ = running(desk, node)
        inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        said: list[str] = []

        async def send(message: object) -> None:
            assert isinstance(message, dict)
            said.append(message["type"])

        inbox.put_nowait({"type": "lifespan.startup"})
        asyncio.get_running_loop().call_later(20, inbox.put_nowait, {"type": "lifespan.shutdown"})
        await a_relay(desk)({"type": "lifespan"}, inbox.get, send)
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert node.closed == ["silent"]
        assert outcome(ticket) in (Outcome.NODE_LOST, Outcome.RELAY_STOPPED)

    run(main)


def test_a_websocket_elsewhere_is_closed() -> None:
    async def main() -> None:
        said: list[object] = []

        async def send(message: object) -> None:
            said.append(message)

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        await a_relay(here())({"type": "websocket", "path": "/elsewhere", "headers": []}, receive, send)
        assert said == [{"type": "websocket.close", "code": 4004}]

    run(main)

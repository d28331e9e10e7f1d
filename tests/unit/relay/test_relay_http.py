from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tokenplace.relay.app import Relay
from tokenplace.relay.jobs import Step
from tokenplace.wire import request, routes
from tokenplace.wire.ids import job_id_of
from tokenplace.wire.limits import MAX_REQUEST, TIMING
from tokenplace.wire.request import HEADER_BYTES, RequestHeader
from tokenplace.wire.stream import CONTENT_TYPE, Record, RecordKind
from unit.relay.desk import Desk, a_card, running
from unit.relay.fake_time import now, run
from unit.relay.web import Exchange, Reply, ask, asking, http_scope

NODE = a_card(1).node
STRANGER = a_card(9).node
JOB = job_id_of(b"j" * 16)
SEALED = (("content-type", request.CONTENT_TYPE),)
TO_NODE = f"{routes.JOBS}?node={NODE}"
A_RECORD = Record(RecordKind.DATA, b"sealed").pack()


def a_relay(desk: Desk) -> Relay:
    return Relay(desk.broker, lambda *_: True, clock=now)


def here(**options: int) -> Desk:
    desk = Desk(**options)
    desk.now = now()
    return desk


def assert_refused(reply: Reply, status: int, code: str) -> None:
    assert (reply.status, reply.json()["error"]["code"]) == (status, code)
    error = reply.json()["error"]
    assert set(reply.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) > 10
    assert error["type"] in {"invalid_request_error", "rate_limit_error", "server_error"}
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]


REFUSALS: list[tuple[str, str, Sequence[tuple[str, str]], int, str]] = [
    ("POST", routes.JOBS, SEALED, 400, "bad_format"),
    ("POST", f"{routes.JOBS}?node=nobody", SEALED, 400, "bad_format"),
    ("POST", f"{TO_NODE}&linger=soon", SEALED, 400, "bad_format"),
    ("POST", f"{TO_NODE}&linger=-1", SEALED, 400, "bad_format"),
    ("POST", f"{TO_NODE}&linger=nan", SEALED, 400, "bad_format"),
    ("POST", f"{TO_NODE}&linger=inf", SEALED, 400, "bad_format"),
    ("POST", f"{routes.JOBS}?node={NODE}&é=1", SEALED, 400, "bad_format"),
    ("POST", f"{TO_NODE}&{'&'.join(f'a{n}=1' for n in range(100))}", SEALED, 400, "bad_format"),
    ("POST", TO_NODE, (*SEALED, ("content-length", "many")), 400, "bad_format"),
    ("POST", TO_NODE, (*SEALED, ("content-length", "-5")), 400, "bad_format"),
    ("POST", TO_NODE, (*SEALED, ("content-length", "²")), 400, "bad_format"),
    ("POST", TO_NODE, (*SEALED, ("content-length", "9" * 5000)), 413, "too_large"),
    ("POST", TO_NODE, (*SEALED, ("content-length", str(MAX_REQUEST + 1))), 413, "too_large"),
    ("POST", TO_NODE, SEALED, 400, "bad_format"),
    ("POST", TO_NODE, (), 415, "unsupported_media_type"),
    ("POST", TO_NODE, (("content-type", "application/json"),), 415, "unsupported_media_type"),
    ("POST", f"{routes.JOBS}?node={STRANGER}", SEALED, 404, "node_unknown"),
    ("PUT", TO_NODE, SEALED, 405, "method_not_allowed"),
    ("POST", routes.NODES, (), 405, "method_not_allowed"),
    ("GET", routes.JOBS, (), 405, "method_not_allowed"),
    ("GET", f"{routes.JOBS}/{JOB}", (), 400, "bad_format"),
    ("GET", f"{routes.JOBS}/short?node={NODE}", (), 400, "bad_format"),
    ("GET", f"{routes.JOBS}/{JOB}/more?node={NODE}", (), 400, "bad_format"),
    ("GET", f"{routes.JOBS}/{JOB}?node={NODE}&next=-1", (), 400, "bad_format"),
    ("GET", f"{routes.JOBS}/{JOB}?node={NODE}&next=1e3", (), 400, "bad_format"),
    ("GET", f"{routes.JOBS}/{JOB}?node={NODE}&next=%C2%B2", (), 400, "bad_format"),
    ("GET", f"{routes.JOBS}/{JOB}?node={NODE}&next={'9' * 5000}", (), 400, "bad_format"),
    ("GET", f"{routes.JOBS}/{JOB}?node={STRANGER}", (), 404, "node_unknown"),
    ("DELETE", f"{routes.JOBS}/{JOB}?node={NODE}", (), 404, "job_unknown"),
    ("DELETE", f"{routes.JOBS}/{JOB}", (), 400, "bad_format"),
    ("GET", f"{routes.NODES}?limit=some", (), 400, "bad_format"),
    ("GET", f"{routes.NODES}?limit=-1", (), 400, "bad_format"),
    ("GET", f"{routes.NODES}?" + "a" * 20_000 + "=1&" * 50, (), 400, "bad_format"),
    ("GET", "/relay/v3", (), 404, "not_found"),
    ("GET", "/", (), 404, "not_found"),
    ("POST", "/v1/chat/completions", (), 403, "blind_relay"),
    ("GET", "/api/v1/models", (), 403, "blind_relay"),
    ("GET", "/v2/models", (), 403, "blind_relay"),
    ("POST", routes.LIVEZ, (), 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "target", "headers", "status", "code"), REFUSALS)
def test_every_fault_of_the_caller_has_a_name_and_a_status(
    method: str, target: str, headers: Sequence[tuple[str, str]], status: int, code: str
) -> None:
    async def main() -> None:
        desk = here()
        desk.node()
        assert_refused(await ask(a_relay(desk), method, target, headers=headers), status, code)
        assert desk.broker.held_bytes == 0
        assert not desk.broker.tickets

    run(main)


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("POST", routes.NODES, "GET, HEAD, OPTIONS"),
        ("GET", routes.JOBS, "POST, OPTIONS"),
        ("PUT", f"{routes.JOBS}/{JOB}", "GET, DELETE, OPTIONS"),
        ("GET", f"{routes.LINK}/", "POST"),
        ("POST", routes.METRICS, "GET, HEAD"),
        ("DELETE", routes.LIVEZ, "GET, HEAD"),
        ("POST", routes.DIAGNOSTICS, "GET, HEAD"),
    ],
)
def test_who_asks_by_a_wrong_method_hears_which_are_right(method: str, target: str, allowed: str) -> None:
    async def main() -> None:
        reply = await ask(a_relay(here()), method, target)
        assert (reply.status, reply.headers["allow"]) == (405, allowed)

    run(main)


def test_a_refused_header_names_its_field_and_gives_the_memory_back() -> None:
    async def main() -> None:
        desk = here()
        desk.node()
        for at, wrong in ((0, "not 9"), (1, "Flags"), (10, "encapsulation"), (12, "derivation"), (14, "Cipher")):
            sealed = bytearray(desk.request())
            sealed[at] = 9
            reply = await ask(a_relay(desk), "POST", TO_NODE, headers=SEALED, body=[bytes(sealed)])
            assert_refused(reply, 400, "bad_format")
            assert wrong in reply.json()["error"]["message"]
        assert desk.broker.held_bytes == 0

    run(main)


def test_a_body_that_grows_beyond_the_bound_is_refused_though_it_claimed_nothing() -> None:
    async def main() -> None:
        desk = here()
        desk.node()
        body = [bytes(MAX_REQUEST // 2), bytes(MAX_REQUEST // 2), b"and one byte more"]
        assert_refused(await ask(a_relay(desk), "POST", TO_NODE, headers=SEALED, body=body), 413, "too_large")
        assert desk.broker.held_bytes == 0

    run(main)


def test_a_body_that_stops_arriving_is_given_up() -> None:
    async def main() -> None:
        desk = here()
        desk.node()
        exchange, began = Exchange(), now()
        exchange.upload(b"some of it", more=True)
        await a_relay(desk)(http_scope("POST", TO_NODE, SEALED), exchange.receive, exchange.send)
        assert_refused(exchange.reply, 408, "request_timeout")
        assert now() - began == 120
        assert desk.broker.held_bytes == 0

    run(main)


def test_a_client_that_leaves_while_it_uploads_leaves_nothing() -> None:
    async def main() -> None:
        desk = here()
        desk.node()
        exchange = Exchange()
        exchange.upload(b"some of it", more=True)
        exchange.leave()
        await a_relay(desk)(http_scope("POST", TO_NODE, SEALED), exchange.receive, exchange.send)
        assert exchange.reply.status == 0
        assert desk.broker.held_bytes == 0

    run(main)


def test_too_much_at_once_is_429_with_a_time_to_wait() -> None:
    async def main() -> None:
        desk = here(max_bytes=100)
        desk.node()
        reply = await ask(a_relay(desk), "POST", TO_NODE, headers=SEALED, body=[desk.request()])
        assert_refused(reply, 429, "queue_full")
        assert reply.json()["error"]["type"] == "rate_limit_error"
        assert reply.headers["retry-after"] == "2"

    run(main)


def test_a_full_queue_is_refused_before_the_body_is_read() -> None:
    async def main() -> None:
        desk = here(max_queue=1)
        node = desk.node()
        desk.submit(node.id)
        desk.submit(node.id)
        exchange = Exchange()
        await a_relay(desk)(http_scope("POST", TO_NODE, SEALED), exchange.receive, exchange.send)
        assert_refused(exchange.reply, 429, "queue_full")
        assert int(exchange.reply.headers["retry-after"]) >= 1

    run(main)


def test_the_same_request_twice_is_a_conflict() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        sealed = desk.request()
        desk.submit_sealed(sealed, node.id)
        reply = await ask(a_relay(desk), "POST", TO_NODE, headers=SEALED, body=[sealed])
        assert_refused(reply, 409, "job_exists")
        assert desk.broker.held_bytes == len(sealed)

    run(main)


def test_a_draining_relay_says_so_everywhere() -> None:
    async def main() -> None:
        desk = here()
        desk.node()
        desk.broker.drain()
        relay = a_relay(desk)
        assert_refused(await ask(relay, "POST", TO_NODE, headers=SEALED, body=[desk.request()]), 503, "draining")
        reply = await ask(relay, "GET", f"{routes.JOBS}/{JOB}?node={NODE}")
        assert_refused(reply, 503, "draining")
        assert reply.headers["retry-after"] == str(round(TIMING.drain))
        assert (await ask(relay, "GET", routes.NODES)).json()["draining"] is True
        health = await ask(relay, "GET", routes.HEALTHZ)
        assert (health.status, health.json()["status"]) == (503, "draining")
        assert (await ask(relay, "GET", routes.LIVEZ)).status == 200

    run(main)


def test_a_page_of_any_origin_may_ask() -> None:
    async def main() -> None:
        relay = a_relay(here())
        for target in (routes.JOBS, f"{routes.JOBS}/{JOB}", routes.NODES):
            reply = await ask(relay, "OPTIONS", target)
            assert (reply.status, reply.body) == (204, b"")
            assert reply.headers["access-control-allow-origin"] == "*"
            assert set(reply.headers["access-control-allow-methods"].split(", ")) == {"GET", "POST", "DELETE"}
            assert reply.headers["access-control-allow-headers"] == "content-type"
            assert "access-control-allow-credentials" not in reply.headers

    run(main)


def test_the_directory_shows_cards_models_and_load() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node(slots=2, models=("a", "b"))
        desk.node(2, models=("c",))
        desk.submit(node.id)
        reply = await ask(a_relay(desk), "GET", f"{routes.NODES}?model=a&limit=5")
        fields = reply.json()
        assert fields["nodes"] == [{"node": NODE, "card": node.card.text, "slots": 2, "free": 1, "queued": 0}]
        assert fields["models"] == {"a": 1, "b": 1, "c": 1}
        assert reply.headers["cache-control"] == "no-store"
        assert len((await ask(a_relay(desk), "GET", routes.NODES)).json()["nodes"]) == 2
        assert (await ask(a_relay(desk), "GET", f"{routes.NODES}?model=x")).json()["nodes"] == []
        assert (await ask(a_relay(desk), "GET", f"{routes.NODES}?limit=0")).json()["nodes"] == []

    run(main)


def test_a_directory_is_never_endless() -> None:
    async def main() -> None:
        desk = here()
        for name in range(1, 81):
            desk.node(name)
        assert len((await ask(a_relay(desk), "GET", f"{routes.NODES}?limit=999999999")).json()["nodes"]) == 64

    run(main)


def test_records_go_straight_through_as_they_come() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        sealed = desk.request()
        cut = [sealed[:HEADER_BYTES], b"", sealed[HEADER_BYTES:]]
        async with asking(a_relay(desk), "POST", TO_NODE, headers=SEALED, body=cut) as exchange:
            while not desk.broker.tickets:
                await asyncio.sleep(0)
            (offer,) = node.offers()
            assert offer.sealed == sealed
            node.accept(offer.sid)
            node.send(offer.sid, 0, A_RECORD)
            assert await exchange.until_body(len(A_RECORD)) == A_RECORD
            assert exchange.reply.status == 200
            assert exchange.reply.headers["content-type"] == CONTENT_TYPE
            assert exchange.reply.headers["x-accel-buffering"] == "no"
            assert "no-transform" in exchange.reply.headers["cache-control"]
            node.send(offer.sid, 1, A_RECORD)
            node.finish(offer.sid, 2)
            await exchange.until_body(2 * len(A_RECORD))
        assert exchange.reply.ended
        assert exchange.reply.body == 2 * A_RECORD
        assert desk.broker.held_bytes == 0

    run(main)


def test_a_client_that_leaves_stops_the_node() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        async with asking(a_relay(desk), "POST", TO_NODE, headers=SEALED, body=[desk.request()]) as exchange:
            await exchange.until_body(0)
            while not desk.broker.tickets:
                await asyncio.sleep(0)
            sid = node.an_offer()
            node.accept(sid)
        assert not desk.broker.tickets
        assert [type(event).__name__ for event in node.hear()] == ["Cancelled"]

    run(main)


def test_a_stream_is_taken_up_again_at_its_record() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, _ = running(desk, node, linger=5, records=2)
        desk.leave(ticket)
        target = f"{routes.JOBS}/{ticket.job.id}?node={NODE}&next=1&linger=5"
        async with asking(a_relay(desk), "GET", target) as exchange:
            while ticket.job.step is not Step.CANCELLED:
                await asyncio.sleep(0)
            rewound = node.a_rewind()
            assert rewound.next_record == 1
            node.accept(rewound.sid, 1)
            node.send(rewound.sid, 1, A_RECORD)
            node.finish(rewound.sid, 2)
            await exchange.until_body(len(A_RECORD))
        assert exchange.reply.body == A_RECORD

    run(main)


def test_a_cancelled_job_is_told_to_whoever_reads_it() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        sealed = desk.request()
        job = RequestHeader.parse(sealed).job
        relay = a_relay(desk)
        async with asking(relay, "POST", TO_NODE, headers=SEALED, body=[sealed]) as exchange:
            while not desk.broker.tickets:
                await asyncio.sleep(0)
            node.accept(node.an_offer())
            reply = await ask(relay, "DELETE", f"{routes.JOBS}/{job}?node={NODE}")
            assert (reply.status, reply.json()) == (200, {"cancelled": True})
            await exchange.until_body(10)
        assert b'"code":"cancelled"' in exchange.reply.body

    run(main)


def test_the_server_s_way_to_cut_a_stalled_reader_is_used() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        cut: list[bool] = []
        exchange = Exchange()
        exchange.upload(desk.request())
        scope = http_scope("POST", TO_NODE, SEALED, {"token.place.abort": lambda: cut.append(True)})
        async with asyncio.TaskGroup() as group:
            group.create_task(_serve(a_relay(desk), scope, exchange))
            while not desk.broker.tickets:
                await asyncio.sleep(0)
            (ticket,) = desk.broker.tickets.values()
            sid = node.an_offer()
            node.accept(sid)
            ticket.put(A_RECORD, now())
            ticket.take()
            for _ in range(int(TIMING.reader_stall) + 2):
                node.end.progress(sid)
                node.tell()
                desk.wait(1)
            exchange.leave()
        assert cut == [True]

    run(main)


async def _serve(relay: Relay, scope: dict[str, object], exchange: Exchange) -> None:
    await relay(scope, exchange.receive, exchange.send)

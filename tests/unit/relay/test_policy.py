"""What an operator decided, seen from outside: limits, diagnostics, what is counted and logged."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from tokenplace.relay.address import TrustedProxies
from tokenplace.relay.app import Relay
from tokenplace.relay.asgi import Receive, Scope, Send, count_stream, marked, respond_error, respond_json
from tokenplace.relay.limits import Budget, Limiter, LocalCounts, RateLimited, read_limits
from tokenplace.relay.policy import Policy
from tokenplace.relay.traffic import AccessLog, Route, rounded, route_of
from tokenplace.wire import routes
from unit.relay.desk import Desk, running
from unit.relay.fake_time import now, run
from unit.relay.web import Exchange, Reply, http_scope

PROXIES = TrustedProxies(["127.0.0.1"])
ANN, BOB = "198.51.100.1", "198.51.100.2"


async def gateway(scope: Scope, _: Receive, send: Send) -> None:
    try:
        if scope["query_string"] == b"stream":
            await count_stream(scope)
    except RateLimited as error:
        await respond_error(send, error)
        return
    await respond_json(marked(scope, send), 200, {"guest": scope["path"]})


@dataclass
class World:
    """A relay with a policy, behind a proxy that says who asks."""

    desk: Desk
    relay: Relay

    async def ask(self, method: str, target: str, who: str = ANN, *, peer: str = "127.0.0.1", **headers: str) -> Reply:
        exchange = Exchange()
        exchange.upload(b"")
        sent = [("x-forwarded-for", who), *((name.replace("_", "-"), value) for name, value in headers.items())]
        scope = http_scope(method, target, sent)
        scope["client"] = (peer, 1)
        await self.relay(scope, exchange.receive, exchange.send)
        return exchange.reply


def a_world(**policy: Any) -> World:
    desk = Desk()
    desk.now = now()
    rules = Policy(**{"proxies": PROXIES, **policy})
    return World(desk, Relay(desk.broker, lambda *_: True, guest=gateway, clock=now, policy=rules))


def a_limiter(**budgets: str) -> Limiter:
    return Limiter({Budget(name): read_limits(text, name) for name, text in budgets.items()}, LocalCounts(now))


def test_the_whole_api_is_one_budget_and_every_answer_says_what_is_left() -> None:
    async def main() -> None:
        world = a_world(limiter=a_limiter(requests="3/minute"))
        for left, path in ((2, "/v1/chat/completions"), (1, "/api/v2/completions"), (0, routes.JOBS)):
            reply = await world.ask("POST", path)
            assert reply.headers["ratelimit"] == f'"requests";r={left};t=60'
            assert reply.headers["x-ratelimit-limit-requests"] == "3"
        await asyncio.sleep(20)
        for path in ("/v1/embeddings", f"{routes.JOBS}?node=x", "/faucet"):
            reply = await world.ask("POST", path)
            error = reply.json()["error"]
            assert (reply.status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
            assert reply.headers["retry-after"] == "40"
            assert reply.headers["x-request-id"]
        assert (await world.ask("POST", "/v1/chat/completions", BOB)).status == 200
        await asyncio.sleep(40)
        assert (await world.ask("POST", "/v1/chat/completions")).status == 200

    run(main)


def test_probes_lists_the_page_and_comings_and_goings_are_never_counted() -> None:
    async def main() -> None:
        world = a_world(limiter=a_limiter(requests="1/day"))
        assert (await world.ask("POST", "/v1/chat/completions")).status == 200
        free = ("/livez", "/healthz", "/metrics", "/", "/assets/x.js", "/v1/models", "/v1/health", routes.NODES)
        for path in (*free, routes.SERVER_NODES, "/next_server"):
            assert (await world.ask("GET", path)).status == 200, path
        for method, path in (("POST", "/sink"), ("POST", "/retrieve"), ("OPTIONS", "/v1/chat/completions")):
            assert (await world.ask(method, path)).status != 429, path
        for method in ("GET", "DELETE"):
            assert (await world.ask(method, f"{routes.JOBS}/{'0' * 32}?node={'a' * 32}")).status == 404
        assert (await world.ask("POST", "/v1/chat/completions")).status == 429

    run(main)


def test_what_is_no_submission_is_not_counted_as_one() -> None:
    async def main() -> None:
        world = a_world(limiter=a_limiter(requests="1/minute"))
        for method, path in (
            ("OPTIONS", routes.JOBS),
            ("HEAD", routes.JOBS),
            ("PUT", routes.JOBS),
            ("POST", f"{routes.JOBS}foo"),
            ("POST", f"{routes.JOBS}/"),
            ("OPTIONS", "/faucet"),
            ("GET", "/faucet"),
        ):
            reply = await world.ask(method, path)
            assert reply.status != 429, (method, path)
            assert "ratelimit" not in reply.headers, (method, path)
        assert (await world.ask("POST", f"{routes.JOBS}foo")).json() == {"guest": f"{routes.JOBS}foo"}
        assert (await world.ask("OPTIONS", routes.JOBS)).status == 204
        assert (await world.ask("POST", routes.JOBS)).headers["ratelimit"] == '"requests";r=0;t=60'

    run(main)


async def _gone_on(world: World, job: str, node: str, who: str = ANN) -> Reply:
    """A client comes back, hears at most the head of its stream, and leaves."""
    exchange = Exchange()
    scope = http_scope("GET", f"{routes.JOBS}/{job}?node={node}&linger=5", [("x-forwarded-for", who)])
    scope["client"] = ("127.0.0.1", 1)
    asking = asyncio.create_task(world.relay(scope, exchange.receive, exchange.send))
    while not exchange.reply.status:
        await asyncio.sleep(0.01)
    exchange.leave()
    await asking
    return exchange.reply


def test_going_on_with_jobs_that_this_relay_never_had_is_counted_by_itself() -> None:
    async def main() -> None:
        world = a_world(limiter=a_limiter(requests="1/day", resumes="5/minute"))
        node = world.desk.node()
        jobs = iter(f"{number:032x}" for number in range(100))
        for _ in range(5):
            assert (await _gone_on(world, next(jobs), node.id)).status == 200
        rewinds = world.desk.broker.counts.rewinds
        reply = await _gone_on(world, next(jobs), node.id)
        assert (reply.status, reply.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 59 <= int(reply.headers["retry-after"]) <= 60
        assert world.desk.broker.counts.rewinds == rewinds, "the node hears nothing of it"
        assert (await _gone_on(world, next(jobs), node.id, BOB)).status == 200
        await asyncio.sleep(60)
        assert (await _gone_on(world, next(jobs), node.id)).status == 200

    run(main)


def test_to_come_back_to_a_job_that_is_here_is_free_and_so_is_a_node_that_is_not() -> None:
    async def main() -> None:
        world = a_world(limiter=a_limiter(resumes="1/day"))
        node, other = world.desk.node(), world.desk.node(2)
        ticket, _ = running(world.desk, node, linger=30)
        for _ in range(20):
            assert (await _gone_on(world, ticket.job.id, node.id)).status == 200
        for _ in range(20):
            assert (await _gone_on(world, "0" * 32, "a" * 32)).status == 404, "its node may be on its way here"
        assert (await _gone_on(world, "0" * 32, node.id)).status == 200
        assert (await _gone_on(world, ticket.job.id, other.id)).status == 429, "of that node there is no such job"

    run(main)


def test_streams_have_a_budget_of_their_own() -> None:
    async def main() -> None:
        world = a_world(limiter=a_limiter(requests="100/minute", streams="1/minute"))
        assert (await world.ask("POST", "/v2/chat/completions?stream")).status == 200
        assert (await world.ask("POST", "/v2/chat/completions")).status == 200
        reply = await world.ask("POST", "/v2/chat/completions?stream")
        assert (reply.status, reply.headers["retry-after"]) == (429, "60")

    run(main)


def test_who_shows_a_known_key_is_counted_by_it() -> None:
    async def main() -> None:
        keys = {"Bearer good": "digest"}
        world = a_world(limiter=a_limiter(requests="1/minute"), holder=keys.get)
        path = "/v1/chat/completions"
        assert (await world.ask("POST", path, ANN, authorization="Bearer good")).status == 200
        assert (await world.ask("POST", path, BOB, authorization="Bearer good")).status == 429
        assert (await world.ask("POST", path, ANN, authorization="Bearer made up")).status == 200
        assert (await world.ask("POST", path, ANN, authorization="Bearer another")).status == 429

    run(main)


def test_a_proxy_that_nobody_declared_is_told_of_once() -> None:
    async def main() -> None:
        for peer, proxies in (("127.0.0.1", []), ("172.18.0.2", []), ("172.18.0.2", ["127.0.0.1"]), ("fd00::2", [])):
            world = a_world(proxies=TrustedProxies(proxies), limiter=a_limiter(requests="2/minute"))
            with capture_logs() as logs:
                seen = [(await world.ask("POST", "/v1/chat/completions", peer=peer)).status for _ in range(4)]
            assert seen == [200, 200, 429, 429], "who comes through a proxy is not somebody on this machine"
            assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["relay.proxy_not_declared"]

    run(main)


def test_a_stranger_who_sends_a_proxy_s_header_is_no_proxy() -> None:
    async def main() -> None:
        world = a_world(proxies=TrustedProxies())
        with capture_logs() as logs:
            assert (await world.ask("POST", "/v1/chat/completions", peer="9.9.9.9")).status == 200
        assert not [line for line in logs if line["log_level"] == "warning"]

    run(main)


def test_diagnostics_are_the_operator_s() -> None:
    async def main() -> None:
        closed, world = a_world(), a_world(operator_token="secret")
        reply = await closed.ask("GET", routes.DIAGNOSTICS, authorization="Bearer ")
        assert (reply.status, reply.json()["error"]["code"]) == (503, "operator_auth_not_configured")
        for headers in (
            {},
            {"authorization": "Bearer no"},
            {"x_token_place_operator": ""},
            {"authorization": "secret"},
        ):
            reply = await world.ask("GET", routes.DIAGNOSTICS, **headers)
            assert (reply.status, reply.json()["error"]["code"]) == (401, "operator_token_invalid")
        for headers in ({"authorization": "Bearer secret"}, {"x_token_place_operator": "secret"}):
            assert (await world.ask("GET", routes.DIAGNOSTICS, **headers)).status == 200

    run(main)


def test_the_operator_s_token_cannot_be_guessed_from_one_address() -> None:
    async def main() -> None:
        world = a_world(operator_token="secret")
        for number in range(10):
            assert (await world.ask("GET", routes.DIAGNOSTICS, authorization=f"Bearer {number}")).status == 401
        reply = await world.ask("GET", routes.DIAGNOSTICS, authorization="Bearer secret")
        assert (reply.status, reply.json()["error"]["code"]) == (429, "too_many_guesses")
        assert reply.headers["retry-after"] == "60"
        assert (await world.ask("GET", routes.DIAGNOSTICS, BOB, authorization="Bearer secret")).status == 200
        await asyncio.sleep(60)
        assert (await world.ask("GET", routes.DIAGNOSTICS, authorization="Bearer secret")).status == 200
        assert b'tokenplace_relay_limited_total{budget="guesses"} 1.0' in (await world.ask("GET", "/metrics")).body

    run(main)


def test_who_shows_no_token_or_the_same_wrong_one_guesses_nothing() -> None:
    async def main() -> None:
        world = a_world(operator_token="secret")
        for _ in range(30):
            for headers in ({}, {"authorization": "Bearer of last year"}, {"authorization": "Bearer "}):
                assert (await world.ask("GET", routes.DIAGNOSTICS, **headers)).status == 401
        assert (await world.ask("GET", routes.DIAGNOSTICS, authorization="Bearer secret")).status == 200

    run(main)


def test_what_can_only_be_looked_at_says_so() -> None:
    async def main() -> None:
        world = a_world(operator_token="secret")
        for path in (routes.DIAGNOSTICS, "/livez", "/metrics"):
            for method in ("POST", "DELETE"):
                reply = await world.ask(method, path)
                assert (reply.status, reply.json()["error"]["code"]) == (405, "method_not_allowed")
                assert reply.headers["allow"] == "GET, HEAD"

    run(main)


def test_diagnostics_tell_how_it_stands_and_name_no_client() -> None:
    async def main() -> None:
        world = a_world(operator_token="secret", limiter=a_limiter(requests="1/minute"))
        node = world.desk.node()
        running(world.desk, node)
        await world.ask("POST", "/v1/chat/completions")
        await world.ask("POST", "/v1/chat/completions")
        reply = await world.ask("GET", routes.DIAGNOSTICS, authorization="Bearer secret")
        told = reply.json()
        assert told["limits"]["used_up"] == {"requests": 1}
        assert told["nodes_total"] == 1
        (shown,) = told["nodes"]
        assert (shown["node"], shown["state"], shown["breaker"], shown["running"]) == (node.id, "listed", "closed", 1)
        assert told["jobs"]["live"] == {"running": 1}
        assert told["memory"]["resident_bytes"] is None or told["memory"]["resident_bytes"] > 1_000_000
        assert ANN not in reply.body.decode()

    run(main)


def test_metrics_have_as_many_series_however_many_paths_are_tried() -> None:
    async def main() -> None:
        world = a_world()
        for path in ("/one", "/v1/x", routes.NODES):
            await world.ask("GET", path)
        before = (await world.ask("GET", "/metrics")).body.count(b"\n")
        for number in range(300):
            await world.ask("GET", f"/nothing/{number}")
            await world.ask("GET", f"/v1/models/{number}", f"198.51.100.{number % 250}")
        reply = await world.ask("GET", "/metrics")
        assert reply.body.count(b"\n") <= before + 25, "the first look at /metrics is itself counted meanwhile"
        text = reply.body.decode()
        assert 'tokenplace_relay_requests_total{route="api",status="200"} 301.0' in text
        assert "198.51" not in text
        assert "nothing" not in text

    run(main)


def test_waiting_is_measured_where_it_happens() -> None:
    async def main() -> None:
        world = a_world()
        await world.ask("GET", "/v1/models")
        text = (await world.ask("GET", "/metrics")).body.decode()
        assert 'tokenplace_relay_request_seconds_bucket{le="+Inf",route="api"} 1.0' in text
        for name in ("queue", "first_piece", "job"):
            assert f'tokenplace_relay_{name}_seconds_bucket{{le="+Inf"}} 0.0' in text

    run(main)


def test_the_log_tells_kind_outcome_and_a_rounded_size_and_no_more() -> None:
    async def main() -> None:
        world = a_world(access_log=AccessLog.ALL)
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        with capture_logs() as logs:
            await world.ask(
                "POST",
                "/v1/chat/completions?secret",
                x_request_id="mine-1",
                traceparent=f"00-{trace}-00f067aa0ba902b7-01",
                user_agent="secret",
            )
            await world.ask("GET", "/livez")
            await world.ask("GET", "/healthz")
        (line,) = [line for line in logs if line["event"] == "http.request"]
        assert line == {
            "event": "http.request",
            "log_level": "info",
            "logger": "tokenplace.relay",
            "http_method": "POST",
            "http_route": "ask",
            "http_status": 200,
            "duration_ms": 0,
            "size": 1024,
            "request_id": "mine-1",
            "trace_id": trace,
        }

    run(main)


@pytest.mark.parametrize("name", ["a sentence that somebody wrote", "x" * 65, "ü"])
def test_a_request_s_name_that_could_be_a_sentence_is_not_logged(name: str) -> None:
    async def main() -> None:
        world = a_world()
        with capture_logs() as logs:
            await world.ask("GET", routes.DIAGNOSTICS, x_request_id=name)
        assert name not in json.dumps(logs, ensure_ascii=False)
        assert [line["http_status"] for line in logs] == [503]

    run(main)


@pytest.mark.parametrize(
    "trace", ["00-0-0-00", f"00-{'0' * 32}-{'1' * 16}-01", "words", f"00-{'g' * 32}-{'1' * 16}-01"]
)
def test_a_trace_that_is_none_is_passed_over(trace: str) -> None:
    async def main() -> None:
        world = a_world(access_log=AccessLog.ALL)
        with capture_logs() as logs:
            await world.ask("GET", "/v1/models", traceparent=trace)
        assert "trace_id" not in logs[0]

    run(main)


@pytest.mark.parametrize(
    ("which", "lines"), [(AccessLog.OFF, []), (AccessLog.SOME, ["ask", "submit"]), (AccessLog.ALL, ["directory"] * 2)]
)
def test_the_busy_routes_are_logged_when_something_goes_wrong(which: AccessLog, lines: list[str]) -> None:
    async def main() -> None:
        world = a_world(access_log=which)
        with capture_logs() as logs:
            for _ in range(2):
                await world.ask("GET", routes.NODES)
            await world.ask("POST", "/v1/chat/completions")
            await world.ask("POST", routes.JOBS)
        seen = [line["http_route"] for line in logs]
        assert seen == (lines if which is not AccessLog.ALL else [*lines, "ask", "submit"])

    run(main)


def test_every_path_is_of_one_kind() -> None:
    assert route_of("POST", routes.JOBS) is Route.SUBMIT
    assert route_of("GET", f"{routes.JOBS}/abc") is Route.RESUME
    assert route_of("DELETE", f"{routes.JOBS}/abc") is Route.CANCEL
    assert route_of("OPTIONS", routes.JOBS) is Route.API
    assert route_of("POST", f"{routes.JOBS}foo") is Route.PAGE
    assert route_of("POST", f"{routes.LINK}/abc") is Route.LINK
    assert route_of("GET", f"{routes.LINK}foo") is Route.PAGE
    assert route_of("POST", "/faucet") is Route.SUBMIT
    assert route_of("OPTIONS", "/faucet") is Route.CLASSIC
    assert route_of("POST", "/sink") is Route.CLASSIC
    assert route_of("GET", "/api/v2/models") is Route.API
    assert route_of("GET", "/anything/else") is Route.PAGE


def test_sizes_are_told_in_powers_of_two() -> None:
    assert [rounded(size) for size in (0, 1, 1024, 1025, 5000)] == [0, 1024, 1024, 2048, 8192]


@pytest.fixture(autouse=True)
def _fresh_logs() -> None:
    structlog.reset_defaults()


def test_a_fault_of_ours_is_counted_as_one() -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    async def main() -> None:
        world = a_world()
        world.relay = Relay(world.desk.broker, lambda *_: True, guest=broken, clock=now, policy=Policy(proxies=PROXIES))
        with pytest.raises(RuntimeError):
            await world.ask("GET", "/v1/models")
        text = (await world.ask("GET", "/metrics")).body.decode()
        assert 'tokenplace_relay_requests_total{route="api",status="500"} 1.0' in text

    run(main)

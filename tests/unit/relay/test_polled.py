"""Polled links take no more than they are allowed: places, memory, and the rate of dialling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address

from tokenplace.relay.address import CLIENT, Client
from tokenplace.relay.asgi import Receive, Scope, Send
from tokenplace.relay.limits import Budget, Limiter, LocalCounts, read_limits
from tokenplace.relay.polled import SILENCE, WAIT, PolledLinks
from tokenplace.wire import routes
from tokenplace.wire.limits import MAX_MESSAGE
from unit.relay.fake_time import now, run
from unit.relay.web import Exchange, Reply, http_scope

Door = Callable[[Scope, Receive, Send], Awaitable[None]]


async def open_door(scope: Scope, receive: Receive, send: Send) -> None:
    """Lets everybody in and hears them out."""
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def closed_door(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 4003, "reason": "not you"})


@asynccontextmanager
async def polled(door: Door, limits: str = "", places: int = 64) -> AsyncIterator[PolledLinks]:
    limiter = Limiter({Budget.LINKS: read_limits(limits, "LINKS")}, LocalCounts(now))
    links = PolledLinks(door, now, limiter, places=places)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(links.run())
        await asyncio.sleep(0)
        yield links
        running.cancel()


class Asked(Exchange):
    """One request under way."""

    task: asyncio.Future[None]


def begin(links: PolledLinks, method: str, token: str = "", address: str = "192.0.2.1", **headers: str) -> Asked:
    exchange = Asked()
    client = Client(ip_address(address), address)
    names = [(name.replace("_", "-"), value) for name, value in headers.items()]
    scope = http_scope(method, f"{routes.LINK}/{token}", names, {CLIENT: client})
    exchange.task = asyncio.ensure_future(links(scope, exchange.receive, exchange.send))
    return exchange


async def say(links: PolledLinks, method: str, token: str = "", address: str = "192.0.2.1", body: bytes = b"") -> Reply:
    exchange = begin(links, method, token, address)
    exchange.upload(body)
    await exchange.task
    return exchange.reply


def test_a_link_is_opened_before_any_body_has_arrived() -> None:
    async def main() -> None:
        async with polled(open_door) as links:
            exchange = begin(links, "POST", content_length="99999999999")
            await exchange.task
            assert exchange.reply.status == 200
            assert len(links) == 1

    run(main)


def test_a_message_that_claims_too_much_is_refused_before_it_arrives() -> None:
    async def main() -> None:
        async with polled(open_door) as links:
            token = (await say(links, "POST")).json()["link"]
            exchange = begin(links, "POST", token, content_length=str(MAX_MESSAGE + 1))
            await exchange.task
            assert (exchange.reply.status, exchange.reply.json()["error"]["code"]) == (413, "too_large")

    run(main)


def test_messages_that_do_not_end_take_a_bounded_memory_and_give_it_back() -> None:
    async def main() -> None:
        async with polled(open_door) as links:
            token = (await say(links, "POST")).json()["link"]
            trickling = [begin(links, "POST", token) for _ in range(40)]
            for exchange in trickling:
                exchange.upload(bytes(MAX_MESSAGE - 1), more=True)
            await asyncio.sleep(1)
            refused = [each for each in trickling if each.reply.status]
            assert [each.reply.json()["error"]["code"] for each in refused] == ["queue_full"] * len(refused)
            assert len(refused) >= 24
            other = (await say(links, "POST", address="192.0.2.2")).json()["link"]
            assert (await say(links, "POST", other, "192.0.2.2", bytes(MAX_MESSAGE))).status == 204
            for exchange in trickling:
                exchange.leave()
            await asyncio.sleep(1)
            many = [(await say(links, "POST", token, body=bytes(MAX_MESSAGE))).status for _ in range(40)]
            assert set(many) == {204}

    run(main)


def test_who_dials_too_often_hears_it_at_once_and_takes_no_place() -> None:
    async def main() -> None:
        async with polled(closed_door, "3/minute") as links:
            replies = [await say(links, "POST") for _ in range(100)]
            assert [each.status for each in replies] == [200] * 3 + [429] * 97
            assert replies[-1].json()["error"]["code"] == "rate_limit_exceeded"
            assert int(replies[-1].headers["retry-after"]) > 30
            assert len(links) == 3
            assert (await say(links, "POST", address="192.0.2.2")).status == 200

    run(main)


def test_one_address_has_so_many_places_until_it_has_heard_or_missed_why_it_was_refused() -> None:
    async def main() -> None:
        async with polled(closed_door, places=4) as links:
            tokens = [(await say(links, "POST")).json()["link"] for _ in range(4)]
            refused = await say(links, "POST")
            assert (refused.status, refused.json()["error"]["code"]) == (429, "queue_full")
            assert (await say(links, "POST", address="192.0.2.2")).status == 200
            told = await say(links, "GET", tokens[0])
            assert (told.status, told.json()["error"]["message"]) == (410, "not you")
            assert (await say(links, "POST")).status == 200
            await asyncio.sleep(WAIT + SILENCE)
            assert len(links) == 0
            assert [(await say(links, "POST")).status for _ in range(5)] == [200] * 4 + [429]

    run(main)


def test_this_machine_has_places_without_number() -> None:
    async def main() -> None:
        async with polled(open_door, places=1) as links:
            assert {(await say(links, "POST", address="127.0.0.1")).status for _ in range(9)} == {200}

    run(main)


def test_a_wrong_method_hears_which_are_right() -> None:
    async def main() -> None:
        async with polled(open_door) as links:
            refused = await say(links, "GET")
            assert (refused.status, refused.headers["allow"]) == (405, "POST")
            token = (await say(links, "POST")).json()["link"]
            refused = await say(links, "PUT", token)
            assert (refused.status, refused.headers["allow"]) == (405, "GET, POST, DELETE")

    run(main)

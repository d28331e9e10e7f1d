from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

from tokenplace.relay.delivery import Delivery
from tokenplace.relay.tickets import Ticket
from tokenplace.wire.limits import CREDIT_WINDOW, TIMING
from tokenplace.wire.messages import Outcome, Reason
from tokenplace.wire.stream import Record, RecordKind, RecordSplitter
from unit.relay.desk import Desk, Puppet, outcome, running
from unit.relay.fake_time import now, run


class Reader:
    """A client's connection under fake time: what came, and when."""

    def __init__(self, desk: Desk, ticket: Ticket) -> None:
        self.aborted: list[str] = []
        self.delivery = Delivery(desk.broker, ticket, now, lambda: self.aborted.append("cut"))

    async def record(self) -> tuple[RecordKind, Any]:
        data = await self.delivery.next()
        (record,) = RecordSplitter().feed(data)
        return record.kind, json.loads(record.payload) if not record.kind.sealed else record.payload


def here(**options: int) -> Desk:
    desk = Desk(**options)
    desk.now = now()
    return desk


def a_record(data: bytes = b"sealed") -> bytes:
    return Record(RecordKind.DATA, data).pack()


async def rest(delivery: Delivery) -> list[bytes]:
    pieces = []
    while data := await delivery.next():
        pieces.append(data)
    return pieces


def test_what_the_node_sent_comes_as_it_is_and_the_sealed_end_needs_no_word_of_ours() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader = Reader(desk, ticket)
        node.send(sid, 0, a_record(b"one"))
        node.send(sid, 1, a_record(b"two"))
        assert await reader.delivery.next() == a_record(b"one") + a_record(b"two")
        node.finish(sid, 2)
        assert await rest(reader.delivery) == []
        reader.delivery.leave()
        assert desk.broker.counts.outcomes == {"done": 1}

    run(main)


def test_records_that_came_before_the_end_are_given_before_it() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader = Reader(desk, ticket)
        node.send(sid, 0, a_record())
        desk.broker.stop()
        assert await reader.record() == (RecordKind.DATA, b"sealed")
        kind, told = await reader.record()
        assert (kind, told["code"]) == (RecordKind.OUTCOME, Outcome.RELAY_STOPPED)
        assert await rest(reader.delivery) == []

    run(main)


def test_a_waiting_client_hears_its_place_at_once_and_again_within_ten_seconds() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        desk.submit(node.id)
        ticket = desk.submit(node.id)
        began, reader = now(), Reader(desk, ticket)
        heard = [(await reader.record(), now() - began) for _ in range(4)]
        assert [news for news, _ in heard] == [(RecordKind.NOTICE, {"state": "queued", "position": 1})] * 4
        assert heard[0][1] == 0
        assert all(later - sooner <= 10 for (_, sooner), (_, later) in pairwise(heard))
        assert heard[-1][1] > 20, "the same place need not be said every moment"

    run(main)


def test_a_waiting_client_hears_within_two_seconds_that_it_has_moved_up() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        desk.submit(node.id)
        before = desk.submit(node.id)
        reader = Reader(desk, desk.submit(node.id))
        assert await reader.record() == (RecordKind.NOTICE, {"state": "queued", "position": 2})
        desk.broker.cancel(before.job.id, node.id)
        began = now()
        assert await reader.record() == (RecordKind.NOTICE, {"state": "queued", "position": 1})
        assert now() - began <= 2

    run(main)


def test_a_working_node_shows_life_within_five_seconds_and_every_ten() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, _ = running(desk, node, records=0)
        began, reader = now(), Reader(desk, ticket)
        times = []
        for _ in range(4):
            assert await reader.record() == (RecordKind.NOTICE, {"state": "running"})
            times.append(now() - began)
        assert times[0] <= 5
        assert all(later - sooner <= 10 for sooner, later in pairwise(times))

    run(main)


def test_after_a_piece_silence_is_broken_within_ten_seconds() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader = Reader(desk, ticket)
        node.send(sid, 0, a_record())
        await reader.record()
        began = now()
        assert (await reader.record())[0] is RecordKind.NOTICE
        assert now() - began == TIMING.sign_of_life_again

    run(main)


def test_a_piece_wakes_the_reader_without_waiting_for_the_sign_of_life() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader, began = Reader(desk, ticket), now()
        asyncio.get_running_loop().call_later(1.25, node.send, sid, 0, a_record())
        assert await reader.record() == (RecordKind.DATA, b"sealed")
        assert now() - began == 1.25

    run(main)


def test_asking_for_more_is_what_returns_the_credit() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader = Reader(desk, ticket)
        node.send(sid, 0, bytes(60_000))
        await reader.delivery.next()
        assert node.hear() == [], "the socket has not taken it yet"
        node.send(sid, 1, a_record())
        await reader.delivery.next()
        assert node.granted() == [CREDIT_WINDOW + 60_000]

    run(main)


def test_a_client_that_hangs_up_ends_the_waiting_and_its_job() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, _ = running(desk, node, records=0)
        reader = Reader(desk, ticket)
        asyncio.get_running_loop().call_later(1, reader.delivery.hang_up)
        assert await rest(reader.delivery) == []
        reader.delivery.leave()
        assert outcome(ticket) == Outcome.CANCELLED

    run(main)


def test_a_second_connection_takes_over_and_the_first_is_told_and_leaves_in_peace() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket = desk.submit(node.id)
        first = Reader(desk, ticket)
        again = desk.attach(ticket.job.id, node.id, 0)
        second = Reader(desk, again)
        kind, told = await first.record()
        assert (kind, told["code"]) == (RecordKind.OUTCOME, Outcome.MOVED)
        assert await rest(first.delivery) == []
        first.delivery.leave()
        assert not ticket.job.ended
        second.delivery.leave()
        assert outcome(ticket) == Outcome.CANCELLED

    run(main)


def test_a_resumed_stream_tells_the_former_reader_that_it_moved() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, _ = running(desk, node, records=0)
        node.send(ticket.sid, 0, a_record())  # type: ignore[arg-type]
        first = Reader(desk, ticket)
        await first.record()
        desk.attach(ticket.job.id, node.id, 1)
        assert (await first.record())[1]["code"] == Outcome.MOVED

    run(main)


def test_a_stalled_reader_is_cut_off_since_nothing_can_be_told_on_a_full_socket() -> None:
    async def main() -> None:
        desk = here()
        node: Puppet = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader = Reader(desk, ticket)
        node.send(sid, 0, a_record())
        await reader.delivery.next()
        for _ in range(int(TIMING.reader_stall) + 2):
            node.end.progress(sid)
            node.tell()
            desk.wait(1)
        assert outcome(ticket) == Outcome.CLIENT_STALLED
        assert reader.aborted == ["cut"]

    run(main)


def test_the_node_s_own_reason_reaches_the_client() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket = desk.submit(node.id)
        reader = Reader(desk, ticket)
        node.end.reject(node.an_offer(), Reason("key_unknown", "Fetch a fresh card."))
        node.tell()
        expected = {"code": "key_unknown", "message": "Fetch a fresh card."}
        assert await reader.record() == (RecordKind.OUTCOME, expected)

    run(main)


# -- the short way -----------------------------------------------------------------------------------------------------


class Socket:
    """What a server writes to at once, while it is not full."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.full = False

    def write(self, data: bytes) -> bool:
        if not self.full:
            self.written.append(data)
        return not self.full


async def waiting(delivery: Delivery) -> asyncio.Task[bytes]:
    task = asyncio.ensure_future(delivery.next())
    await asyncio.sleep(0)
    return task


def test_a_piece_goes_out_the_moment_it_arrives_while_the_client_keeps_up() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader, socket = Reader(desk, ticket), Socket()
        reader.delivery.write_with(socket.write)
        next_one = await waiting(reader.delivery)
        for number in range(3):
            node.send(sid, number, a_record(bytes([number])))
        assert socket.written == [a_record(bytes([number])) for number in range(3)]
        assert not next_one.done()
        node.finish(sid, 3)
        assert await next_one == b""

    run(main)


def test_what_a_full_socket_does_not_take_comes_the_long_way_in_its_order() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader, socket = Reader(desk, ticket), Socket()
        reader.delivery.write_with(socket.write)
        next_one = await waiting(reader.delivery)
        socket.full = True
        node.send(sid, 0, a_record(b"one"))
        socket.full = False
        node.send(sid, 1, a_record(b"two"))
        assert socket.written == []
        assert await next_one == a_record(b"one") + a_record(b"two")

    run(main)


def test_pieces_that_went_the_short_way_earn_the_node_its_credit() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader, socket = Reader(desk, ticket), Socket()
        reader.delivery.write_with(socket.write)
        next_one = await waiting(reader.delivery)
        for number in range(3 * CREDIT_WINDOW // 16_384):
            node.send(sid, number, bytes(16_384))
            node.hear()
        assert sum(map(len, socket.written)) == 3 * CREDIT_WINDOW
        next_one.cancel()

    run(main)


def test_a_connection_that_lost_its_ticket_to_another_writes_no_more() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, _ = running(desk, node, records=1, linger=5.0)
        former, socket = Reader(desk, ticket), Socket()
        former.delivery.write_with(socket.write)
        assert await former.delivery.next() == b"piece"
        next_one = await waiting(former.delivery)
        latter = Reader(desk, desk.attach(ticket.job.id, node.id, 1))
        kind, told = RecordKind(RecordSplitter().feed(await next_one)[0].kind), ticket.ended
        assert (kind, told is not None) == (RecordKind.OUTCOME, True)
        again = node.a_rewind()
        node.accept(again.sid, 1)
        node.send(again.sid, 1, a_record(b"for the other"))
        assert socket.written == []
        assert await latter.record() == (RecordKind.DATA, b"for the other")

    run(main)


def test_signs_of_life_still_come_when_nothing_does() -> None:
    async def main() -> None:
        desk = here()
        node = desk.node()
        ticket, sid = running(desk, node, records=0)
        reader, socket = Reader(desk, ticket), Socket()
        reader.delivery.write_with(socket.write)
        next_one = await waiting(reader.delivery)
        node.send(sid, 0, a_record())
        began = now()
        (record,) = RecordSplitter().feed(await next_one)
        assert record.kind is RecordKind.NOTICE
        assert now() - began == TIMING.sign_of_life_again

    run(main)

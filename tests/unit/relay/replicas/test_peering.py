from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenplace.errors import Draining, JobUnknown, NodeUnknown, QueueFull, StoreUnavailable
from tokenplace.relay.delivery import Delivery
from tokenplace.relay.jobs import Step
from tokenplace.relay.replicas.errands import MAX_UNANSWERED, Errand
from tokenplace.relay.replicas.messages import Kind, ReplicaId, To, pack_frame, pack_letter, parse_letter
from tokenplace.relay.replicas.peering import MAX_PEERS
from tokenplace.relay.switchboard import Switchboard
from tokenplace.relay.tickets import INTERRUPTED
from tokenplace.wire.ids import JobId, ModelId, Sid
from tokenplace.wire.limits import CREDIT_STEP, CREDIT_WINDOW
from tokenplace.wire.messages import Reason
from unit.relay.desk import Puppet, outcome
from unit.relay.replicas.mesh import Mesh, Replica, losing, to_one


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def meet(mesh: Mesh, slots: int = 1) -> tuple[Replica, Replica, Puppet]:
    """A client's replica, a node's replica, and the node."""
    here, there = mesh.replicas
    node = there.node(slots=slots)
    mesh.pass_time(0.2)
    return here, there, node


def flowing(mesh: Mesh, *, linger: float = 0.0) -> tuple[Replica, Replica, Puppet, Errand, Sid]:
    """A stream across, with one record seen."""
    here, there, node = meet(mesh)
    errand = here.errand(node.id, linger=linger)
    mesh.settle()
    sid = node.an_offer()
    node.accept(sid)
    node.send(sid, 0, b"first")
    mesh.settle()
    assert errand.take() == b"first"
    here.peering.taken(errand, 5, mesh.now)
    return here, there, node, errand, sid


def board(replica: Replica) -> Switchboard:
    return Switchboard(replica.broker, lambda: replica.now, replica.peering)


# -- who is where


def test_a_node_at_one_replica_is_suggested_at_the_other(mesh: Mesh) -> None:
    here, there, node = meet(mesh)
    assert board(here).pick(ModelId("m"), 8)[0].listing() == node.node.listing()
    assert board(here).models() == {"m": 1}
    assert [each.id for each in board(here).pick(None, 8, named=node.id)] == [node.id]
    assert board(here).pick(ModelId("other"), 8, named=node.id) == []
    assert board(there).known == board(here).known == 1


def test_how_busy_it_is_is_known_soon(mesh: Mesh) -> None:
    here, there, node = meet(mesh)
    there.submit(node.id)
    there.submit(node.id)
    mesh.pass_time(0.2)
    listing = board(here).pick(None, 1)[0].listing()
    assert (listing.free, listing.queued) == (0, 1)


def test_a_node_that_leaves_is_not_suggested_any_more(mesh: Mesh) -> None:
    here, _, node = meet(mesh)
    node.break_link()
    mesh.pass_time(0.2)
    assert board(here).pick(None, 8) == []
    with pytest.raises(NodeUnknown):
        here.peering.find(node.id)


def test_a_node_at_both_is_suggested_once_and_served_here(mesh: Mesh) -> None:
    here, _, node = meet(mesh)
    again = here.node()
    mesh.pass_time(0.2)
    assert board(here).pick(None, 8) == [again.node]
    assert board(here).models() == {"m": 1}
    again.break_link()
    mesh.pass_time(0.2)
    assert [each.id for each in board(here).pick(None, 8)] == [node.id]


def test_equals_are_served_here_and_the_busy_are_passed_over(mesh: Mesh) -> None:
    here, there = mesh.replicas
    mine, theirs = here.node(1), there.node(2)
    mesh.pass_time(0.2)
    for _ in range(20):
        assert [each.id for each in board(here).pick(None, 8)] == [mine.id, theirs.id]
    for _ in range(3):
        here.submit(mine.id)
    assert [each.id for each in board(here).pick(None, 8)] == [theirs.id, mine.id]
    assert board(here).pick(None, 8, prefer=theirs.id)[0].id == theirs.id


def test_a_replica_that_was_away_learns_everything_anew(mesh: Mesh) -> None:
    here, there, node = meet(mesh)
    mesh.meddle = losing(lambda letter: letter.to == "all", times=3)
    other = there.node(2)
    mesh.pass_time(0.3)
    assert board(here).known == 1, "the news were lost"
    mesh.pass_time(2.5)
    assert board(here).known == 2
    assert {each.id for each in board(here).pick(None, 8)} == {node.id, other.id}


# -- streams


def test_a_job_is_queued_where_its_node_is_and_its_place_is_told(mesh: Mesh) -> None:
    here, _, node = meet(mesh)
    first = here.errand(node.id)
    mesh.settle()
    assert (first.job.step, first.opened) == (Step.OFFERED, True)
    second = here.errand(node.id)
    third = here.errand(node.id)
    mesh.settle()
    assert (third.job.step, here.peering.position(third)) == (Step.QUEUED, 2)
    here.peering.leave(second, mesh.now)
    mesh.pass_time(1.1)
    assert here.peering.position(third) == 1
    sid = node.an_offer()
    node.accept(sid)
    node.finish(sid, 0)
    mesh.pass_time(1.1)
    assert third.job.step is Step.OFFERED


def test_records_arrive_in_order_and_the_end_after_them(mesh: Mesh) -> None:
    here, there, node, errand, sid = flowing(mesh)
    for number in range(1, 10):
        node.send(sid, number, b"%d" % number)
    node.finish(sid, 10)
    mesh.settle()
    assert errand.take() == b"123456789"
    assert outcome(errand) == "done"
    assert not here.peering.busy
    assert there.broker.counts.outcomes == {"done": 1}
    assert here.broker.counts.outcomes == {}


def test_a_client_that_does_not_read_stops_the_node(mesh: Mesh) -> None:
    here, there, node = meet(mesh)
    errand = here.errand(node.id)
    mesh.settle()
    sid = node.an_offer()
    node.accept(sid)
    piece, number = bytes(8192), 0
    for number in range(CREDIT_WINDOW // len(piece)):
        node.send(sid, number, piece)
    mesh.pass_time(3)
    assert node.granted() == [], "nothing was taken, so nothing more may come"
    data = errand.take()
    assert len(data) == CREDIT_WINDOW
    here.peering.taken(errand, CREDIT_STEP, mesh.now)
    mesh.settle()
    assert node.granted() == [CREDIT_WINDOW + CREDIT_STEP]
    here.peering.taken(errand, 100, mesh.now)
    mesh.pass_time(1.5)
    (ticket,) = there.broker.tickets.values()
    assert ticket.taken_bytes == CREDIT_STEP + 100, "small sums are told now and then, or the client counts as stalled"


def test_leaving_cancels_at_the_node_unless_the_client_lingers(mesh: Mesh) -> None:
    here, there, node, errand, _ = flowing(mesh)
    here.peering.leave(errand, mesh.now)
    mesh.settle()
    assert there.broker.counts.outcomes == {"cancelled": 1}
    errand = here.errand(node.id, linger=5)
    mesh.settle()
    here.peering.leave(errand, mesh.now)
    mesh.settle()
    assert there.broker.tickets
    mesh.pass_time(6)
    assert not there.broker.tickets


def test_a_lingering_job_is_gone_on_with_from_either_replica(mesh: Mesh) -> None:
    here, there, node, errand, _ = flowing(mesh, linger=30)
    here.peering.leave(errand, mesh.now)
    mesh.settle()
    again = here.peering.attach(here.peering.find(node.id)[0], errand.job.id, 1, 30)
    mesh.settle()
    rewound = node.a_rewind()
    node.accept(rewound.sid, 1)
    node.send(rewound.sid, 1, b"second")
    mesh.settle()
    assert again.take() == b"second"
    local = there.attach(errand.job.id, node.id, 2)
    mesh.settle()
    assert outcome(again) == "moved"
    assert local.job.step is Step.OFFERED


def test_refusals_come_back_as_they_were_given(mesh: Mesh) -> None:
    here, there, node = meet(mesh)
    stranger = here.peering.cancel(here.peering.find(node.id)[0], here.errand(node.id).job.id)
    mesh.settle()
    assert stranger.refusal is None, "the job was there"
    gone = here.peering.cancel(here.peering.find(node.id)[0], stranger.job.id)
    mesh.settle()
    assert isinstance(gone.refusal, JobUnknown)
    there.broker.drain()
    late = here.errand(node.id)
    mesh.settle()
    assert isinstance(late.refusal, Draining)
    assert late.refusal.retry_after


def test_too_much_on_its_way_to_one_replica_is_refused_here(mesh: Mesh) -> None:
    here, _, node = meet(mesh)
    big = MAX_UNANSWERED // 2
    here.errand(node.id, size=big)
    with pytest.raises(QueueFull):
        here.errand(node.id, size=big)


def test_who_asks_is_not_told_on_the_bus(mesh: Mesh) -> None:
    here, there, node = meet(mesh)
    said: list[bytes] = []
    mesh.meddle = lambda letters: [said.append(letter.data) or letter for letter in letters]  # type: ignore[func-returns-value]
    here.errand(node.id)
    here.errand(node.id)
    mesh.settle()
    assert not any(b"somebody" in data for data in said)
    clients = {ticket.client for ticket in there.broker.tickets.values()}
    assert len(clients) == 1, "and yet it is one client to the fair queue"


# -- what breaks


def test_a_lost_letter_interrupts_the_stream_and_the_next_one_works(mesh: Mesh) -> None:
    here, there, node, errand, sid = flowing(mesh)
    mesh.meddle = losing(to_one)
    node.send(sid, 1, b"lost")
    mesh.settle()
    node.send(sid, 2, b"later")
    mesh.pass_time(1.2)
    assert errand.take() == b"", "nothing after a gap is shown"
    assert outcome(errand) == INTERRUPTED
    assert not there.broker.tickets
    assert here.peering.counted.gaps == 1
    node.report(1, 1)
    next_one = here.errand(node.id)
    mesh.settle()
    sid = node.offers()[-1].sid
    node.accept(sid)
    node.send(sid, 0, b"fine")
    mesh.pass_time(3)
    assert next_one.take() == b"fine"
    assert next_one.ended is None


def test_a_loss_in_silence_is_noticed_by_the_pulse(mesh: Mesh) -> None:
    _, _, node, errand, sid = flowing(mesh)
    mesh.meddle = losing(to_one)
    node.send(sid, 1, b"lost")
    mesh.settle()
    assert errand.ended is None
    mesh.pass_time(1.2)
    assert outcome(errand) == INTERRUPTED


def test_letters_that_come_twice_count_once(mesh: Mesh) -> None:
    mesh.meddle = lambda letters: [each for letter in letters for each in (letter, letter)]
    _, _, node, errand, sid = flowing(mesh)
    for number in range(1, 5):
        node.send(sid, number, b"%d" % number)
        mesh.settle()
    node.finish(sid, 5)
    mesh.settle()
    assert errand.take() == b"1234"
    assert outcome(errand) == "done"


def test_letters_in_another_order_are_never_spliced(mesh: Mesh) -> None:
    here, _, node, errand, sid = flowing(mesh)
    waiting = []
    for number in range(1, 3):
        node.send(sid, number, b"%d" % number)
        waiting += mesh.replicas[1].peering.take()
    for letter in reversed(waiting):
        here.peering.receive(letter.data, mesh.now)
    mesh.settle()
    assert errand.take() == b""
    assert outcome(errand) == INTERRUPTED


def test_a_replica_that_falls_silent_is_forgotten_and_its_nodes_are_missed(mesh: Mesh) -> None:
    here, there, node, errand, _ = flowing(mesh)
    mesh.deaf.add(there)
    mesh.pass_time(here.peering.pace.silence + 2)
    assert outcome(errand) == INTERRUPTED
    assert not here.peering.peers
    assert board(here).pick(None, 8) == []
    with pytest.raises(StoreUnavailable) as missed:
        here.peering.find(node.id)
    assert missed.value.retry_after
    mesh.pass_time(25)
    with pytest.raises(NodeUnknown):
        here.peering.find(node.id)


def test_a_replica_that_nobody_hears_any_more_is_gone_at_once(mesh: Mesh) -> None:
    here, there, _, errand, _ = flowing(mesh)
    here.peering.unheard(there.peering.topics[1], mesh.now)
    assert outcome(errand) == INTERRUPTED
    assert not here.peering.peers


def test_a_replica_that_wakes_up_drops_what_it_had_and_is_known_again(mesh: Mesh) -> None:
    here, there, node, errand, sid = flowing(mesh)
    mesh.deaf.add(there)
    mesh.pass_time(8)
    mesh.deaf.clear()
    node.send(sid, 1, b"late")
    mesh.pass_time(2)
    assert errand.take() == b""
    assert not there.broker.tickets, "the client that was at the other end is gone"
    assert here.peering.find(node.id)
    fresh = here.errand(node.id)
    mesh.settle()
    assert fresh.opened


def test_a_goodbye_needs_no_waiting(mesh: Mesh) -> None:
    here, there, node, errand, _ = flowing(mesh)
    there.peering.leaving()
    mesh.carry()
    assert outcome(errand) == INTERRUPTED
    assert not here.peering.peers
    with pytest.raises(StoreUnavailable):
        here.peering.find(node.id)


def test_a_stop_there_is_a_broken_connection_here(mesh: Mesh) -> None:
    _, there, _, errand, _ = flowing(mesh)
    there.broker.stop()
    mesh.settle()
    assert outcome(errand) == INTERRUPTED


def test_a_lost_bus_ends_what_went_over_it_and_nothing_else(mesh: Mesh) -> None:
    here, _, node, errand, _ = flowing(mesh)
    mine = here.node(2)
    own = here.submit(mine.id)
    here.peering.lost(mesh.now)
    assert outcome(errand) == INTERRUPTED
    assert own.ended is None
    assert board(here).pick(ModelId("m"), 8) == [mine.node]
    with pytest.raises(StoreUnavailable):
        here.peering.find(node.id)
    mine.break_link()
    with pytest.raises(StoreUnavailable):
        board(here).pick(ModelId("m"), 8)
    here.peering.connected(mesh.now)
    mesh.pass_time(1.5)
    assert [each.id for each in board(here).pick(ModelId("m"), 8)] == [node.id]


def test_a_bus_that_brings_nothing_is_lost(mesh: Mesh) -> None:
    here, _, _, errand, _ = flowing(mesh)
    mesh.meddle = lambda letters: []
    mesh.mending = False
    mesh.pass_time(here.peering.pace.echo + 0.5)
    assert here.peering.silent
    assert not here.peering.up
    assert outcome(errand) == INTERRUPTED


def test_a_request_that_arrives_after_its_client_gave_up_is_let_go(mesh: Mesh) -> None:
    here, there, node = meet(mesh)
    errand = here.errand(node.id)
    late = here.peering.take()
    here.peering.lost(mesh.now)
    assert isinstance(errand.refusal, StoreUnavailable)
    here.peering.connected(mesh.now)
    for letter in late:
        there.peering.receive(letter.data, mesh.now)
    assert there.broker.tickets
    mesh.pass_time(1.5)
    assert not there.broker.tickets


def test_half_a_request_gives_its_memory_back(mesh: Mesh) -> None:
    here, there, node = meet(mesh)
    here.errand(node.id, size=2_000_000)
    mesh.meddle = lambda letters: letters[:2]
    mesh.carry()
    mesh.meddle = list
    assert there.broker.held_bytes > 1_000_000
    mesh.pass_time(1.5)
    assert there.broker.held_bytes == 0


def test_an_owner_that_drops_a_stream_says_so_when_it_is_read_on(mesh: Mesh) -> None:
    here, _, node, errand, sid = flowing(mesh)
    here.peering.errands.leave(errand)
    node.send(sid, 1, b"late")
    mesh.settle()
    assert errand.take() == b""


@given(st.binary(max_size=200))
def test_any_bytes_on_the_bus_are_passed_over(data: bytes) -> None:
    mesh = Mesh(1)
    mesh.replicas[0].peering.receive(data, mesh.now)


@given(
    st.sampled_from(Kind), st.integers(0, 3), st.binary(max_size=60) | st.just(b"{}") | st.just(b'{"nodes":[[1,2]]}')
)
def test_any_payload_of_a_peer_is_passed_over_or_refused(kind: Kind, stream: int, payload: bytes) -> None:
    mesh = Mesh()
    here, there, node, _, _ = flowing(mesh)
    data = pack_letter(To.ONE, there.peering.me, 1_000_000, 0, [pack_frame(kind, stream, payload)])
    here.peering.receive(data, mesh.now)
    there.peering.receive(pack_letter(To.ALL, here.peering.me, 1_000_000, 0, [pack_frame(kind, 0, payload)]), mesh.now)
    mesh.pass_time(7)
    assert here.peering.find(node.id)


def test_frames_of_a_later_release_are_passed_over() -> None:
    data = pack_letter(To.ONE, Mesh(1).replicas[0].peering.me, 1, 0, [b"\xfe" + bytes(8), pack_frame(Kind.PULSE)])
    assert [frame.kind for frame in parse_letter(data).frames] == [Kind.PULSE]


def test_a_reason_travels_as_it_is(mesh: Mesh) -> None:
    _, _, node, errand, sid = flowing(mesh)
    node.finish(sid, 1, Reason("aborted", "engine"))
    mesh.settle()
    assert errand.ended == Reason("aborted", "engine")


# -- who can write to the bus


@pytest.mark.parametrize(
    "told",
    [
        b'{"loads":[[["x"],[1,1,1,true,true,1]]]}',
        b'{"loads":[[{},[1,1,1,true,true,1]]]}',
        b'{"gone":[[1]]}',
        b'{"gone":[{}]}',
        b'{"gone":5}',
        b'{"nodes":{"a":1}}',
        b'{"nodes":[["a.b",[1,1,1,1,1,1]]]}',
        b"[" * 100_000,
    ],
    ids=lambda told: told[:40].decode(),
)
@pytest.mark.parametrize("kind", [Kind.PRESENCE, Kind.SYNCED, Kind.SUBMIT, Kind.ATTACH, Kind.REFUSED, Kind.STATE])
def test_what_no_replica_would_say_is_passed_over(mesh: Mesh, kind: Kind, told: bytes) -> None:
    here, _, node = meet(mesh)
    stranger = ReplicaId("ab" * 8)
    here.peering.receive(pack_letter(To.ALL, stranger, 1, 0, [pack_frame(Kind.BEAT)]), mesh.now)
    for to in To:
        here.peering.receive(pack_letter(to, stranger, 1, 1, [pack_frame(kind, 7, told)]), mesh.now)
    assert [each.id for each in board(here).pick(None, 8)] == [node.id]


def test_made_up_replicas_are_bounded(mesh: Mesh) -> None:
    here, _, _ = meet(mesh)
    for number in range(10 * MAX_PEERS):
        letter = pack_letter(To.ALL, ReplicaId(f"{number:016x}"), 1, 0, [pack_frame(Kind.BEAT)])
        here.peering.receive(letter, mesh.now)
    assert len(here.peering.peers) == MAX_PEERS


# -- what is counted


async def test_an_answer_from_another_replica_is_in_the_waiting_times_here(mesh: Mesh) -> None:
    here, _, node = meet(mesh)
    errand = here.errand(node.id)
    delivery = Delivery(here.peering, errand, lambda: mesh.now)
    mesh.settle()
    sid = node.an_offer()
    node.accept(sid)
    node.send(sid, 0, b"first")
    mesh.settle()
    assert await delivery.next() == b"first"
    node.finish(sid, 1)
    mesh.settle()
    assert await delivery.next() == b""
    delivery.leave()
    waits = here.broker.counts.waits
    assert [sum(each.counts) for each in (waits.first_piece, waits.queue, waits.job)] == [1, 1, 1]


async def test_going_on_with_an_answer_is_not(mesh: Mesh) -> None:
    here, _, node, errand, _ = flowing(mesh, linger=9.0)
    here.peering.leave(errand, mesh.now)
    mesh.settle()
    again = here.peering.attach(here.peering.find(node.id)[0], errand.job.id, 1, 0.0)
    delivery = Delivery(here.peering, again, lambda: mesh.now)
    mesh.settle()
    delivery.leave()
    assert not sum(here.broker.counts.waits.job.counts)


def test_what_waits_for_an_answer_is_known_however_it_ends(mesh: Mesh) -> None:
    here, _, node = meet(mesh, slots=8)
    peer = next(iter(here.peering.peers.values()))
    taken, left, lost = (here.errand(node.id, size=1000) for _ in range(3))
    sizes = sum(errand.upload for errand in (taken, left, lost))
    assert peer.unanswered == sizes > 3000
    here.peering.leave(left, mesh.now)
    mesh.settle()
    assert taken.opened
    assert not peer.unanswered
    here.errand(node.id)
    here.peering.lost(mesh.now)
    assert not peer.unanswered


async def test_a_cancel_whose_second_replica_goes_away_meanwhile_finds_no_job() -> None:
    mesh = Mesh(3)
    here, there, third = mesh.replicas
    node = there.node()
    third.node()
    mesh.pass_time(0.2)
    board_here = board(here)

    async def gone() -> None:
        await asyncio.sleep(0)
        for peer in list(here.peering.peers.values()):
            here.peering.unheard(peer.out.topic, mesh.now)

    with pytest.raises((JobUnknown, StoreUnavailable)):
        await asyncio.gather(board_here.cancel(JobId("0" * 32), node.id), gone())


# -- losses that nothing follows


def test_an_ending_that_is_lost_with_nothing_after_it_is_missed_all_the_same(mesh: Mesh) -> None:
    _, _, node, errand, sid = flowing(mesh)
    mesh.meddle = losing(to_one)
    node.finish(sid, 1)
    mesh.settle()
    mesh.pass_time(3)
    assert errand.ended == Reason(INTERRUPTED), "its client comes back for the rest"


def test_replicas_with_nothing_open_between_them_do_not_answer_each_other_for_ever(mesh: Mesh) -> None:
    here, there, _ = meet(mesh)
    here.peering.peers[there.peering.me].out.put(Kind.PULSE, 0, b"?")
    mesh.settle()
    assert not mesh.carry()

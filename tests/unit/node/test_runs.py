from __future__ import annotations

from tokenplace.errors import KeyUnknown
from tokenplace.link.ends import NodeEnd, RelayEnd
from tokenplace.link.events import (
    Accepted,
    Cancelled,
    Ended,
    Granted,
    Introduced,
    Offered,
    Piece,
    Progressed,
    Rejected,
    RelayEvent,
    Reported,
    Rewound,
)
from tokenplace.node.runs import KEPT_BYTES, Run, Runs
from tokenplace.wire.card import Card, CardBody
from tokenplace.wire.ids import JobId, Sid
from tokenplace.wire.limits import CREDIT_WINDOW, MAX_RECORD, RUN_BUFFER, TIMING
from tokenplace.wire.messages import Hello, Outcome, Reason
from tokenplace.wire.request import Kem, RequestHeader

DONE = Reason(Outcome.DONE)
BODY = CardBody(identity=b"i" * 32, sequence=1, issued_ms=0, keys=(), models=())
HELLO = Hello(Card(body=BODY, signed=BODY.pack(), signature=bytes(64)), bytes(64), "relay", 2)


def a_request(number: int = 1, body: bytes = bytes(48)) -> bytes:
    return RequestHeader(bytes(8), Kem.X25519, number.to_bytes(16, "big"), 0).pack() + body


def job(number: int = 1) -> JobId:
    return RequestHeader.parse(a_request(number)).job


class Relay:
    """A relay at the far end of a link to these runs."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.end, self.node = RelayEnd(), NodeEnd()
        self.end.challenge(bytes(32))
        self.node.receive(self.end.take(), 0)
        self.node.hello(HELLO)
        assert isinstance(self.end.receive(self.node.take(), 0)[0], Introduced)
        self.end.welcome("relay")
        self.node.receive(self.end.take(), 0)
        bench.runs.link_up(self.node)
        self.free = self.told_free()

    def told_free(self) -> int:
        (event,) = self.heard()
        assert isinstance(event, Reported)
        return event.status.free

    def say(self) -> None:
        """Deliver what this relay's end wants to say."""
        runs, now = self.bench.runs, self.bench.now
        while message := self.end.take():
            for event in self.node.receive(message, now):
                match event:
                    case Offered():
                        runs.offered(self.node, event, now)
                    case Rewound():
                        runs.rewound(self.node, event, now)
                    case Granted(sid=sid, total=total):
                        runs.granted(self.node, sid, total, now)
                    case Cancelled(sid=sid):
                        runs.cancelled(self.node, sid)

    def heard(self) -> list[RelayEvent]:
        events: list[RelayEvent] = []
        while message := self.node.take():
            events += self.end.receive(message, self.bench.now)
        return events

    def offer(self, sealed: bytes) -> Sid:
        sid = self.end.offer(sealed)
        self.say()
        return sid

    def rewind(self, number: int, next_record: int, allowed: int = CREDIT_WINDOW) -> Sid:
        sid = self.end.rewind(job(number), next_record, allowed)
        self.say()
        return sid

    def grant(self, sid: Sid, total: int) -> None:
        self.end.grant(sid, total)
        self.say()

    def cancel(self, sid: Sid) -> None:
        self.end.cancel(sid)
        self.say()

    def lose(self) -> None:
        self.bench.runs.link_lost(self.node, self.bench.now)


class Bench:
    """Runs, a clock that the test moves, and workers that do nothing by themselves."""

    def __init__(self, slots: int = 2) -> None:
        self.now = 100.0
        self.working: dict[JobId, Run] = {}
        self.refuse = False
        self.runs = Runs(slots=slots, timing=TIMING, start=self._start, stop=self._stop)

    def _start(self, run: Run, sealed: bytes) -> None:
        if self.refuse:
            raise KeyUnknown
        self.working[run.job] = run

    def _stop(self, run: Run) -> None:
        del self.working[run.job]
        self.runs.release(run)

    def push(self, run: Run, record: bytes = b"record") -> None:
        self.runs.push(run, record, self.now)

    def finish(self, run: Run) -> None:
        self.working.pop(run.job)
        self.runs.finish(run, DONE, self.now)
        self.runs.release(run)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.runs.tick(self.now)


def started(slots: int = 2) -> tuple[Bench, Relay, Sid, Run]:
    bench = Bench(slots)
    relay = Relay(bench)
    sid = relay.offer(a_request())
    assert relay.heard() == [Accepted(sid, 0)]
    return bench, relay, sid, bench.working[job()]


def pieces(events: list[RelayEvent]) -> list[tuple[int, bytes]]:
    return [(event.number, event.data) for event in events if isinstance(event, Piece)]


def rejection(events: list[RelayEvent]) -> str:
    return next(event.reason.code for event in events if isinstance(event, Rejected))


# -- offers ------------------------------------------------------------------------------------------------------------


def test_a_job_is_started_answered_and_ended() -> None:
    bench, relay, sid, run = started()
    bench.push(run, b"zero")
    bench.push(run, b"one")
    assert (bench.runs.busy, bench.runs.free) == (1, 1)
    bench.finish(run)
    *records, ended = relay.heard()
    assert pieces(records) == [(0, b"zero"), (1, b"one")]
    assert isinstance(ended, Ended)
    assert (ended.sid, ended.records, ended.ending.reason, ended.ending.free) == (sid, 2, DONE, 2)


def test_a_node_without_free_slots_says_busy() -> None:
    bench, relay, *_ = started(slots=1)
    relay.offer(a_request(2))
    assert rejection(relay.heard()) == "busy"
    assert bench.runs.busy == 1


def test_every_other_relay_hears_that_a_slot_went_and_came() -> None:
    bench = Bench()
    first, second = Relay(bench), Relay(bench)
    first.offer(a_request())
    assert second.told_free() == 1
    bench.finish(bench.working[job()])
    assert second.told_free() == 2
    assert not any(isinstance(event, Reported) for event in first.heard()), "the END has told it"


def test_what_is_no_request_is_refused_by_code() -> None:
    bench = Bench()
    relay = Relay(bench)
    relay.offer(b"junk")
    assert rejection(relay.heard()) == "bad_format"
    bench.refuse = True
    relay.offer(a_request())
    assert rejection(relay.heard()) == "key_unknown"
    assert (bench.runs.busy, bench.working) == (0, {})


def test_the_same_request_again_is_bound_to_its_run() -> None:
    bench, relay, _, run = started()
    bench.push(run, b"zero")
    relay.heard()
    relay.lose()
    back = Relay(bench)
    sid = back.offer(a_request())
    assert back.heard() == [Accepted(sid, 0), Piece(sid, 0, b"zero")]
    assert (bench.runs.busy, len(bench.working)) == (1, 1)


def test_another_request_under_a_known_id_is_refused() -> None:
    bench, relay, *_ = started()
    relay.offer(a_request(1, b"x" * 48))
    assert rejection(relay.heard()) == "duplicate_job"
    assert bench.runs.busy == 1


def test_a_request_offered_again_after_its_beginning_was_dropped_is_not_spliced() -> None:
    bench, relay, sid, run = started()
    total = 0
    while not run.first_kept:
        bench.push(run, bytes([run.count % 256]) * MAX_RECORD)
        total += MAX_RECORD
        relay.grant(sid, total + CREDIT_WINDOW)
    relay.heard()
    relay.lose()
    back = Relay(bench)
    back.offer(a_request())
    assert rejection(back.heard()) == Outcome.ANSWER_TOO_LARGE


def test_a_draining_node_takes_nothing_new_and_goes_on_with_what_it_has() -> None:
    bench, relay, _, run = started()
    bench.runs.draining = True
    relay.offer(a_request(2))
    assert rejection(relay.heard()) == "node_draining"
    bench.push(run)
    assert len(pieces(relay.heard())) == 1


def test_a_node_that_stops_gives_back_what_has_not_begun() -> None:
    bench = Bench(slots=3)
    relay, other = Relay(bench), Relay(bench)
    begun, waiting = relay.offer(a_request(1)), relay.offer(a_request(2))
    other.offer(a_request(3))
    bench.push(bench.working[job(1)], b"first")
    other.lose()
    relay.heard()
    bench.runs.draining = True
    bench.runs.hand_back()
    (ended,) = [event for event in relay.heard() if isinstance(event, Ended)]
    assert (ended.sid, ended.records, ended.ending.reason.code) == (waiting, 0, "node_draining")
    assert ended.ending.free == 0
    assert set(bench.working) == {job(1)}, "what nobody is attached to and has not begun is stopped too"
    bench.push(bench.working[job(1)], b"second")
    bench.finish(bench.working[job(1)])
    assert [event.sid for event in relay.heard() if isinstance(event, Piece | Ended)] == [begun, begun]


def test_an_engine_that_goes_down_is_told_and_comes_back() -> None:
    bench = Bench()
    relay = Relay(bench)
    bench.runs.resize(0)
    assert relay.told_free() == 0
    relay.offer(a_request())
    assert rejection(relay.heard()) == "busy"
    bench.runs.resize(2)
    assert relay.told_free() == 2


# -- credit ------------------------------------------------------------------------------------------------------------


def test_a_slow_reader_slows_the_worker_and_its_credit_starts_it_again() -> None:
    bench, relay, sid, run = started()
    room: list[int] = []
    run.on_room = lambda: room.append(1)
    sent = 0
    while run.has_room:
        bench.push(run, bytes(10_000))
        sent += 10_000
    assert sent < 2 * CREDIT_WINDOW + 10_000
    assert len(pieces(relay.heard())) == CREDIT_WINDOW // 10_000
    room.clear()
    relay.grant(sid, 3 * CREDIT_WINDOW)
    assert room
    assert len(pieces(relay.heard())) == sent // 10_000 - CREDIT_WINDOW // 10_000


def test_what_is_kept_of_one_answer_is_bounded() -> None:
    bench, relay, sid, run = started()
    for number in range(1, 1000):
        bench.push(run, bytes(10_000))
        relay.grant(sid, number * 10_000 + CREDIT_WINDOW)
        relay.heard()
    assert RUN_BUFFER - 10_000 <= run.kept_bytes <= RUN_BUFFER
    assert run.count == 999
    relay.rewind(1, 0)
    assert rejection(relay.heard()) == Outcome.ANSWER_TOO_LARGE


def test_finished_answers_are_bounded_in_all_and_the_oldest_go_first() -> None:
    bench = Bench()
    relay = Relay(bench)
    many = KEPT_BYTES // RUN_BUFFER + 2
    for number in range(1, many + 1):
        sid = relay.offer(a_request(number))
        run = bench.working[job(number)]
        for piece in range(RUN_BUFFER // MAX_RECORD):
            bench.push(run, bytes(MAX_RECORD))
            relay.grant(sid, piece * MAX_RECORD + 2 * CREDIT_WINDOW)
        bench.finish(run)
        relay.heard()
    relay.rewind(1, 0)
    assert rejection(relay.heard()) == "job_unknown"
    sid = relay.rewind(many, 0)
    assert relay.heard()[0] == Accepted(sid, 0)


# -- links that break, relays that ask ---------------------------------------------------------------------------------


def test_a_broken_link_leaves_the_run_silent_until_it_is_told_where_to_go_on() -> None:
    bench, relay, _, run = started()
    for number in range(3):
        bench.push(run, b"%d" % number)
    relay.heard()
    relay.lose()
    bench.push(run, b"3")
    back = Relay(bench)
    assert back.heard() == []
    sid = back.rewind(1, 2)
    assert back.heard() == [Accepted(sid, 2), Piece(sid, 2, b"2"), Piece(sid, 3, b"3")]


def test_a_rewound_stream_keeps_to_the_credit_it_starts_with() -> None:
    bench, relay, _, run = started()
    for _ in range(3):
        bench.push(run, bytes(1000))
    relay.heard()
    relay.lose()
    back = Relay(bench)
    sid = back.rewind(1, 0, 2500)
    assert len(pieces(back.heard())) == 2
    back.grant(sid, 3000)
    assert len(pieces(back.heard())) == 1


def test_a_run_moves_to_the_relay_that_asks_and_the_former_is_told() -> None:
    bench, relay, sid, run = started()
    bench.push(run, b"zero")
    relay.heard()
    other = Relay(bench)
    taken = other.rewind(1, 1)
    (ended,) = relay.heard()
    assert isinstance(ended, Ended)
    assert (ended.sid, ended.records, ended.ending.reason.code) == (sid, 1, Outcome.MOVED)
    bench.push(run, b"one")
    assert other.heard() == [Accepted(taken, 1), Piece(taken, 1, b"one")]
    assert relay.heard() == []


def test_a_finished_answer_is_there_for_half_a_minute() -> None:
    bench, relay, _, run = started()
    bench.push(run, b"zero")
    bench.finish(run)
    relay.heard()
    bench.wait(TIMING.keep_finished - 1)
    sid = relay.rewind(1, 0)
    events = relay.heard()
    assert events[:2] == [Accepted(sid, 0), Piece(sid, 0, b"zero")]
    assert isinstance(events[2], Ended)
    bench.wait(TIMING.keep_finished - 1)
    relay.rewind(1, 1)
    assert isinstance(relay.heard()[0], Accepted)
    bench.wait(TIMING.keep_finished + 1)
    relay.rewind(1, 0)
    assert rejection(relay.heard()) == "job_unknown"


def test_a_claim_beyond_the_answer_is_refused_and_the_run_is_let_go() -> None:
    bench, relay, _, run = started(slots=1)
    bench.push(run)
    relay.end.forget(Sid(1))
    relay.rewind(1, 5)
    assert rejection(relay.heard()) == "not_there_yet"
    bench.wait(TIMING.orphan)
    assert bench.runs.busy == 0
    assert relay.told_free() == 1


def test_a_claim_through_another_relay_does_not_take_the_run_from_the_first() -> None:
    bench, relay, _, run = started()
    other = Relay(bench)
    other.rewind(1, 5)
    assert rejection(other.heard()) == "not_there_yet"
    bench.push(run)
    assert len(pieces(relay.heard())) == 1


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_run_stops_at_once_and_frees_its_slot() -> None:
    bench, relay, sid, run = started()
    relay.cancel(sid)
    assert bench.working == {}
    assert relay.told_free() == 2
    bench.push(run)
    bench.runs.finish(run, DONE, bench.now)
    assert relay.heard() == []
    assert bench.runs.busy == 0


def test_a_cancel_that_finds_nothing_is_answered_with_what_is_free() -> None:
    bench, relay, sid, run = started()
    bench.finish(run)
    relay.cancel(sid)
    assert relay.told_free() == 2


def test_an_orphan_that_nobody_claims_is_stopped() -> None:
    bench, relay, *_ = started()
    relay.lose()
    bench.wait(TIMING.orphan - 1)
    assert bench.runs.busy == 1
    bench.wait(1)
    assert (bench.runs.busy, bench.working) == (0, {})


def test_an_orphan_goes_on_to_compute_only_as_far_as_one_window() -> None:
    bench, relay, _, run = started()
    relay.lose()
    for _ in range(100):
        if run.has_room:
            bench.push(run, bytes(10_000))
    assert run.kept_bytes < CREDIT_WINDOW + 10_000


def test_a_quiet_worker_shows_that_it_works() -> None:
    bench, relay, sid, run = started()
    bench.wait(TIMING.progress_every - 1)
    assert relay.heard() == []
    bench.wait(1)
    assert relay.heard() == [Progressed(sid)]
    bench.wait(1)
    assert relay.heard() == []
    bench.push(run)
    relay.heard()
    bench.wait(TIMING.progress_every - 1)
    assert relay.heard() == []


def test_a_node_that_stops_stops_everything() -> None:
    bench, *_ = started()
    bench.runs.stop_all()
    assert (bench.runs.busy, bench.working) == (0, {})


def test_an_answer_that_was_not_read_to_its_end_is_not_sent_yet() -> None:
    bench, relay, sid, run = started()
    for _ in range(8):
        bench.push(run, bytes(10_000))
    bench.finish(run)
    assert (bench.runs.unsent, bench.runs.free) == (True, 2)
    relay.grant(sid, 10 * CREDIT_WINDOW)
    assert not bench.runs.unsent

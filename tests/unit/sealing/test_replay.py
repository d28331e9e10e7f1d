from __future__ import annotations

import pytest

from tokenplace.errors import ClockSkew, QueueFull, Replayed
from tokenplace.sealing.replay import ClassicGuard, ReplayGuard
from tokenplace.wire.limits import Timing
from tokenplace.wire.request import Kem, RequestHeader

NOW = 1_767_225_600_000
MINUTE = 60_000


def header(number: int, time_ms: int = NOW) -> RequestHeader:
    return RequestHeader(key_id=bytes(8), kem=Kem.X25519, request_id=number.to_bytes(16, "big"), time_ms=time_ms)


def test_a_request_is_admitted_once() -> None:
    guard = ReplayGuard()
    guard.admit(header(1), NOW)
    guard.admit(header(2), NOW)
    for later in range(0, 5 * MINUTE + 1, MINUTE):
        with pytest.raises(Replayed):
            guard.admit(header(1), NOW + later)


def test_a_request_of_another_time_is_not_remembered() -> None:
    guard = ReplayGuard()
    for time_ms in (NOW - 5 * MINUTE - 1, NOW + 5 * MINUTE + 1, 0, 2**64 - 1):
        with pytest.raises(ClockSkew):
            guard.admit(header(1, time_ms), NOW)
    assert len(guard) == 0
    guard.admit(header(1), NOW)


def test_there_is_no_moment_at_which_a_replay_slips_through() -> None:
    for ahead in range(-5 * MINUTE, 5 * MINUTE + 1, MINUTE):
        guard = ReplayGuard()
        guard.admit(header(1, NOW + ahead), NOW)
        for later in [*range(1, 12 * MINUTE, 13_579), 5 * MINUTE + ahead, 10 * MINUTE - 1, 10 * MINUTE]:
            with pytest.raises((Replayed, ClockSkew)):
                guard.admit(header(1, NOW + ahead), NOW + later)


def test_a_timing_that_would_forget_too_early_is_stretched() -> None:
    guard = ReplayGuard(Timing(clock_skew=300, replay_memory=1))
    guard.admit(header(1, NOW + 5 * MINUTE), NOW)
    with pytest.raises(Replayed):
        guard.admit(header(1, NOW + 5 * MINUTE), NOW + 10 * MINUTE)


def test_what_is_old_is_forgotten() -> None:
    guard = ReplayGuard()
    for number in range(100):
        guard.admit(header(number, NOW + number), NOW + number)
    assert len(guard) == 100
    guard.admit(header(1000, NOW + 20 * MINUTE), NOW + 20 * MINUTE)
    assert len(guard) == 1


def test_a_full_memory_refuses_rather_than_forgets() -> None:
    guard = ReplayGuard(limit=2)
    guard.admit(header(1), NOW)
    guard.admit(header(2), NOW)
    with pytest.raises(QueueFull) as refusal:
        guard.admit(header(3), NOW + MINUTE)
    wait = refusal.value.retry_after
    assert wait == 540.001
    with pytest.raises(Replayed):
        guard.admit(header(1), NOW + MINUTE)
    later = NOW + MINUTE + round(wait * 1000)
    guard.admit(header(3, later), later)


def test_a_clock_that_is_set_back_does_not_open_the_memory() -> None:
    guard = ReplayGuard()
    guard.admit(header(1), NOW)
    with pytest.raises(Replayed):
        guard.admit(header(1), NOW - 4 * MINUTE)


def test_a_classic_message_is_admitted_once_however_it_is_altered() -> None:
    guard = ClassicGuard()
    guard.admit(b"one cipherkey")
    guard.admit(b"another")
    for _ in range(3):
        with pytest.raises(Replayed):
            guard.admit(b"one cipherkey")


def test_a_full_classic_memory_forgets_the_oldest() -> None:
    guard = ClassicGuard(limit=2)
    for cipherkey in (b"1", b"2", b"3"):
        guard.admit(cipherkey)
    assert len(guard) == 2
    for cipherkey in (b"2", b"3"):
        with pytest.raises(Replayed):
            guard.admit(cipherkey)
    guard.admit(b"1")


def test_junk_pushes_no_classic_message_that_opened_out_of_the_memory() -> None:
    guard = ClassicGuard(limit=3)
    guard.admit(b"opened")
    guard.opened(b"opened")
    for number in range(100):
        guard.admit(b"junk %d" % number)
    assert len(guard) <= 2 * 3
    with pytest.raises(Replayed):
        guard.admit(b"opened")

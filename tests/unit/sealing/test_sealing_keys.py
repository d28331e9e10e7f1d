from __future__ import annotations

import pytest

from tokenplace.errors import ClockSkew, KeyUnknown
from tokenplace.sealing.exchange import open_request, seal_request
from tokenplace.sealing.keys import LIFE_MS, MAX_PREVIOUS, OVERLAP_MS, KeyRing, choose_key
from tokenplace.wire.card import SealingKey
from tokenplace.wire.request import Kem

NOW = 1_767_225_600_000
SKEW = 300_000
CURVE = Kem.X25519


def fresh(now_ms: int = NOW) -> KeyRing:
    return KeyRing.generate(now_ms=now_ms, kem=CURVE)


def shown(ring: KeyRing, now_ms: int = NOW) -> SealingKey:
    (key,) = ring.public_keys(now_ms)
    return key


def test_a_new_ring_has_a_hybrid_key_for_a_day() -> None:
    key = shown(KeyRing.generate(now_ms=NOW))
    assert key.kem is Kem.X25519_MLKEM768
    assert (key.not_before_ms, key.not_after_ms) == (NOW, NOW + LIFE_MS)


def test_a_request_on_its_way_while_the_key_rotates_still_opens() -> None:
    ring = fresh()
    sealed, _ = seal_request(b"words", shown(ring), now_ms=NOW)
    ring.rotate(NOW + 1)
    assert shown(ring).key_id != sealed[2:10]
    assert open_request(sealed, ring, now_ms=NOW + 2).body == b"words"
    assert open_request(sealed, ring, now_ms=NOW + OVERLAP_MS).body == b"words"


def test_after_the_overlap_the_old_key_is_unknown_even_before_a_tick() -> None:
    ring = fresh()
    sealed, _ = seal_request(b"words", shown(ring), now_ms=NOW)
    ring.rotate(NOW + 1)
    with pytest.raises(KeyUnknown):
        open_request(sealed, ring, now_ms=NOW + 1 + OVERLAP_MS)


def destroyed(ring: KeyRing, key: SealingKey) -> bool:
    """Whether the ring holds the key no more: asked for a time at which it would still open requests."""
    try:
        ring.find(key.key_id, NOW)
    except KeyUnknown:
        return True
    return False


def test_a_tick_rotates_after_a_day_and_destroys_after_two() -> None:
    ring = fresh()
    old = shown(ring)
    assert not ring.tick(NOW + LIFE_MS - 1)
    assert ring.tick(NOW + LIFE_MS)
    assert shown(ring, NOW + LIFE_MS).key_id != old.key_id
    assert not ring.tick(NOW + LIFE_MS + OVERLAP_MS - 1)
    assert ring.find(old.key_id, NOW + LIFE_MS + OVERLAP_MS - 1).public() == old
    assert ring.tick(NOW + LIFE_MS + OVERLAP_MS)
    assert destroyed(ring, old)


def test_a_tick_destroys_a_key_whose_overlap_ends_before_the_next_rotation() -> None:
    ring = fresh()
    old = shown(ring)
    ring.rotate(NOW + 1)
    ring.rotate(NOW + 1000)
    current = shown(ring)
    assert not destroyed(ring, old)
    assert not ring.tick(NOW + 1 + OVERLAP_MS)
    assert destroyed(ring, old)
    assert shown(ring, NOW + 1 + OVERLAP_MS) == current


def test_a_node_that_slept_for_a_week_wakes_without_its_old_keys() -> None:
    ring = fresh()
    old = shown(ring)
    week = NOW + 7 * LIFE_MS
    assert ring.public_keys(week) == ()
    with pytest.raises(KeyUnknown):
        ring.find(old.key_id, week)
    assert ring.tick(week)
    assert shown(ring, week).not_before_ms == week
    assert destroyed(ring, old)


def test_a_late_tick_does_not_prolong_the_overlap() -> None:
    ring = fresh()
    old = shown(ring)
    ring.tick(NOW + LIFE_MS + OVERLAP_MS // 2)
    with pytest.raises(KeyUnknown):
        ring.find(old.key_id, NOW + LIFE_MS + OVERLAP_MS)


def test_a_rotation_without_overlap_destroys_all_keys_before() -> None:
    ring = fresh()
    first = shown(ring)
    ring.rotate(NOW + 1)
    second = shown(ring)
    ring.rotate(NOW + 2, overlap_ms=0)
    for key in (first, second):
        with pytest.raises(KeyUnknown):
            ring.find(key.key_id, NOW + 2)
    assert ring.find(shown(ring).key_id, NOW + 2)


def test_a_ring_holds_no_more_keys_than_its_bound() -> None:
    ring = fresh()
    ids = [shown(ring).key_id]
    for step in range(1, MAX_PREVIOUS + 2):
        ring.rotate(NOW + step)
        ids.append(shown(ring).key_id)
    with pytest.raises(KeyUnknown):
        ring.find(ids[0], NOW + 100)
    for key_id in ids[1:]:
        assert ring.find(key_id, NOW + 100).key_id == key_id


def test_a_key_made_under_a_wrong_clock_is_replaced_when_the_clock_is_right() -> None:
    future = NOW + 365 * LIFE_MS
    ring = fresh(future)
    ahead = shown(ring, future)
    assert ring.tick(NOW)
    assert shown(ring).not_before_ms == NOW
    assert ring.find(ahead.key_id, NOW)
    with pytest.raises(KeyUnknown):
        ring.find(ahead.key_id, NOW + OVERLAP_MS)


def test_a_small_step_back_of_the_clock_changes_nothing() -> None:
    ring = fresh()
    assert not ring.tick(NOW - SKEW)


def test_a_node_that_starts_again_opens_nothing_of_before() -> None:
    sealed, _ = seal_request(b"words", shown(fresh()), now_ms=NOW)
    with pytest.raises(KeyUnknown):
        open_request(sealed, fresh(), now_ms=NOW)


@pytest.mark.parametrize("kem", list(Kem), ids=lambda kem: kem.name)
def test_no_private_byte_is_in_a_representation(kem: Kem) -> None:
    ring = KeyRing.generate(now_ms=NOW, kem=kem, random=lambda size: b"Q" * size)
    ring.rotate(NOW + 1)
    key = ring.find(shown(ring).key_id, NOW + 1)
    for text in (repr(key), str(key), repr(ring), f"{ring}", repr(ring.__dict__)):
        assert "QQQQ" not in text
        assert (b"Q" * 4).hex() not in text
    assert key.key_id.hex() in repr(key)


def key(kem: Kem = CURVE, begin: int = NOW, end: int = NOW + LIFE_MS) -> SealingKey:
    return SealingKey(kem, bytes(32), begin, end)


def test_a_client_takes_the_hybrid_key_and_of_two_the_one_that_lives_longer() -> None:
    hybrid, longer = key(Kem.X25519_MLKEM768), key(end=NOW + 2 * LIFE_MS)
    assert choose_key([key(), longer, hybrid], now_ms=NOW) == hybrid
    assert choose_key([longer, key()], now_ms=NOW) == longer


def test_a_client_forgives_a_small_difference_of_the_clocks() -> None:
    assert choose_key([key()], now_ms=NOW - SKEW) == key()
    assert choose_key([key()], now_ms=NOW + LIFE_MS + SKEW - 1) == key()


def test_a_client_does_not_seal_to_a_key_of_yesterday() -> None:
    with pytest.raises(KeyUnknown, match="fresh"):
        choose_key([key(), key(begin=NOW + 3 * LIFE_MS, end=NOW + 4 * LIFE_MS)], now_ms=NOW + LIFE_MS + SKEW)


def test_a_client_whose_clock_is_far_behind_is_told_so() -> None:
    with pytest.raises(ClockSkew, match="clock"):
        choose_key([key()], now_ms=NOW - SKEW - 1)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokenplace.errors import KeyUnknown
from tokenplace.sealing.classic_ring import ClassicRing
from tokenplace.sealing.keys import HOUR_MS, LIFE_MS, MAX_PREVIOUS, OVERLAP_MS
from tokenplace.sealing.rsa import ClassicKey

FILE: dict[str, Any] = json.loads((Path(__file__).parents[3] / "spec" / "vectors" / "classic.json").read_text("utf-8"))
A, B, JS = (ClassicKey.from_pem(FILE["keys"][name]["private_key_pem"]) for name in ("A", "B", "JS"))
NOW = 1_700_000_000_000


def test_a_key_is_shown_for_a_day_and_then_due() -> None:
    ring = ClassicRing(A, NOW)
    assert ring.current is A
    assert not ring.due(NOW + LIFE_MS - 1)
    assert ring.due(NOW + LIFE_MS)


def test_a_key_made_in_the_future_is_due() -> None:
    assert ClassicRing(A, NOW).due(NOW - HOUR_MS)


def test_what_was_sealed_to_the_former_key_opens_for_a_day_more_and_then_never() -> None:
    ring = ClassicRing(A, NOW)
    ring.rotate(B, NOW)
    assert ring.current is B
    assert ring.find(A.key_id, NOW + OVERLAP_MS - 1) is A
    assert ring.held(NOW) == (B, A)
    with pytest.raises(KeyUnknown):
        ring.find(A.key_id, NOW + OVERLAP_MS)
    assert ring.tick(NOW + OVERLAP_MS)
    assert ring.previous(NOW) == ()
    assert not ring.tick(NOW + OVERLAP_MS)


def test_a_rotation_without_overlap_destroys_every_key_before() -> None:
    ring = ClassicRing(A, NOW)
    ring.rotate(B, NOW)
    ring.rotate(JS, NOW, overlap_ms=0)
    assert ring.held(NOW) == (JS,)


def test_a_key_that_was_never_here_is_unknown() -> None:
    with pytest.raises(KeyUnknown):
        ClassicRing(A, NOW).find(B.key_id, NOW)


def test_rotating_often_keeps_a_bounded_number_of_keys() -> None:
    ring = ClassicRing(A, NOW)
    for number in range(3 * MAX_PREVIOUS):
        ring.rotate((B, A)[number % 2], NOW + number)
    assert len(ring.held(NOW + 100)) == MAX_PREVIOUS + 1


def test_no_key_shows_itself() -> None:
    ring = ClassicRing(A, NOW)
    assert "PRIVATE" not in repr(ring)
    assert A.key_id.hex() in repr(ring)

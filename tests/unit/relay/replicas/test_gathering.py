"""How long replicas gather what they say: not at all while there is little of it, and never for long."""

from __future__ import annotations

import pytest

from tokenplace.relay.bus.base import Topic
from tokenplace.relay.replicas.courier import Gathering
from tokenplace.relay.replicas.messages import Kind, ReplicaId
from tokenplace.relay.replicas.wires import Haste, Sending


def said(gathering: Gathering, haste: Haste, *, every: float, seconds: float, frames: int = 1) -> float:
    """Letters per second of somebody who has a frame every so often."""
    now, letters, due = 100.0, 0, None
    while now < 100.0 + seconds:
        if due is None:
            due = now + gathering.pause(now, haste)
        if due <= now:
            gathering.spoke(now, frames)
            letters += 1
            due = None
        now += every
    return letters / seconds


def test_a_lone_request_waits_for_nothing() -> None:
    gathering = Gathering()
    assert [gathering.pause(100.0 + second, Haste.NOW) for second in range(5)] == [0.0] * 5
    assert gathering.pause(105.0, Haste.SOON) == 0.0


def test_some_hundred_requests_a_second_wait_for_nothing_either() -> None:
    assert said(Gathering(), Haste.NOW, every=0.002, seconds=2) == pytest.approx(500, rel=0.05)


@pytest.mark.parametrize("haste", [Haste.NOW, Haste.SOON])
def test_a_torrent_is_gathered(haste: Haste) -> None:
    assert said(Gathering(), haste, every=0.0001, seconds=2, frames=12) < 1_800


def test_many_pieces_do_not_keep_a_request_waiting() -> None:
    gathering = Gathering()
    said(gathering, Haste.SOON, every=0.0001, seconds=1)
    assert gathering.pause(101.0, Haste.SOON) > 0.0
    assert gathering.pause(101.0, Haste.NOW) <= 0.002


def test_what_only_tells_where_a_job_stands_waits_a_few_milliseconds_for_company() -> None:
    assert 0.001 < Gathering().pause(100.0, Haste.LATER) < 0.02


def test_a_letter_is_asked_for_once_and_again_when_something_hastier_joins_it() -> None:
    asked: list[Haste] = []
    sending = Sending(ReplicaId("0" * 16), Topic("t"), 1, asked.append)
    sending.put(Kind.OPENED, 1, haste=Haste.LATER)
    sending.put(Kind.STATE, 1, haste=Haste.LATER)
    sending.put(Kind.DATA, 1, b"first")
    sending.put(Kind.DATA, 1, b"second", Haste.SOON)
    assert asked == [Haste.LATER, Haste.NOW]
    assert len(sending.take()) == 1
    sending.put(Kind.DATA, 1, b"third", Haste.SOON)
    assert asked[2:] == [Haste.SOON]

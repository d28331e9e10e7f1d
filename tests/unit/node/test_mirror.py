"""A node looks at what relays show under its id."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import ClassVar

import pytest

from tokenplace.errors import RelayUnreachable
from tokenplace.node.counts import Counts
from tokenplace.node.lookout import look_in_the_mirror
from tokenplace.node.mirror import Alarm, Mirror
from tokenplace.node.standing import RelayState, Report, Situation
from tokenplace.sealing.identity import Identity
from tokenplace.wire.card import Card, CardBody

ME, OTHER = Identity(b"m" * 32), Identity(b"o" * 32)


def a_card(sequence: int, identity: Identity = ME) -> Card:
    return identity.sign_card(CardBody(identity.public, sequence, issued_ms=sequence, keys=(), models=()))


@pytest.fixture
def mirror() -> Mirror:
    mirror = Mirror(ME.node)
    for sequence in (10, 11):
        mirror.made(a_card(sequence))
    return mirror


@pytest.mark.parametrize("sequence", [10, 11])
def test_cards_of_ours_are_no_alarm_also_when_a_newer_one_is_out(mirror: Mirror, sequence: int) -> None:
    assert mirror.judge(a_card(sequence)) is None


def test_a_card_of_an_earlier_life_is_only_old(mirror: Mirror) -> None:
    assert mirror.judge(a_card(9)) is None


def test_a_card_that_our_key_signed_and_we_did_not_make_means_that_the_key_is_stolen(mirror: Mirror) -> None:
    assert mirror.judge(a_card(12)) is Alarm.STOLEN


@pytest.mark.parametrize("card", [replace(a_card(12), signature=bytes(64)), a_card(12, OTHER)])
def test_a_card_that_our_key_did_not_sign_is_the_relay_s_lie(mirror: Mirror, card: Card) -> None:
    assert mirror.judge(card) is Alarm.FORGED


async def test_a_relay_that_cannot_be_asked_proves_nothing(mirror: Mirror) -> None:
    with pytest.raises(RelayUnreachable):
        await mirror.look("http://127.0.0.1:9")


def test_an_alarm_is_in_the_report_by_name_and_with_what_to_do() -> None:
    relay = RelayState("https://relay.example", alarm=Alarm.STOLEN)
    situation = Situation([relay], ["m"], warm=True, pauses={}, draining=False, running=1, quiet=0.0)
    report = Report.of(situation, Counts(0.0), 1.0, node="n", version="1", mock=False, slots=1)
    (alarm,) = report.fields()["alarms"]
    assert alarm["code"] == "stolen"
    assert "https://relay.example: another machine serves under this node's identity" in alarm["message"]


async def test_looking_goes_on_and_an_alarm_that_is_over_goes_away() -> None:
    class Scripted(Mirror):
        said: ClassVar[list[Alarm | None]] = [Alarm.FORGED, None]

        async def look(self, relay: str) -> Alarm | None:
            return self.said.pop(0) if len(self.said) > 1 else self.said[0]

    relay = RelayState("https://relay.example")

    async def until(alarm: Alarm | None) -> None:
        async with asyncio.timeout(20):
            while relay.alarm is not alarm:
                await asyncio.sleep(0)

    looking = asyncio.ensure_future(look_in_the_mirror([relay], Scripted(ME.node), every=0.01, first=0.0))
    await until(Alarm.FORGED)
    await until(None)
    looking.cancel()

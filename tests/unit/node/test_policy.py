"""When the machine may serve."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from tokenplace.node.hardware import Readings
from tokenplace.node.policy import SERVE, Damped, Hours, Policy, Verdict, part_of, watch
from tokenplace.node.settings import NodeSettings

MONDAY = 23  # of November 2026
QUIET = Readings(on_battery=False, cpu_busy=0.0, gpu_busy=0.0, temperature=40.0)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute)


class TestHours:
    @pytest.mark.parametrize(
        ("text", "when", "held"),
        [
            ("22:00-07:00", at(MONDAY, 23), True),
            ("22:00-07:00", at(MONDAY, 6, 59), True),
            ("22:00-07:00", at(MONDAY, 7), False),
            ("22:00-07:00", at(MONDAY, 21, 59), False),
            ("9:00-17:00", at(MONDAY, 9), True),
            ("9:00-17:00,20:00-24:00", at(MONDAY, 23, 59), True),
            ("9:00-17:00,20:00-24:00", at(MONDAY, 18), False),
            ("mon-fri 22:00-07:00", at(MONDAY, 6), False),  # that night began on Sunday
            ("mon-fri 22:00-07:00", at(MONDAY + 5, 6), True),  # Saturday morning, Friday's night
            ("fri-mon 10:00-12:00", at(MONDAY, 11), True),
            ("fri-mon 10:00-12:00", at(MONDAY + 1, 11), False),
            ("Sat 00:00-24:00", at(MONDAY + 5, 12), True),
            ("Sat 00:00-24:00", at(MONDAY + 6, 0), False),
            ("", at(MONDAY, 3), True),
        ],
    )
    def test_hours_hold_over_midnight_and_by_day(self, text: str, when: datetime, held: bool) -> None:
        assert Hours.parse(text).hold(when) is held

    @pytest.mark.parametrize("text", ["22-7", "25:00-07:00", "22:00", "moonday 10:00-12:00", "10:61-12:00", "always"])
    def test_what_is_no_time_is_told(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"22:00-07:00|no time of day"):
            Hours.parse(text)

    def test_the_setting_is_checked_when_it_is_read(self) -> None:
        with pytest.raises(ValidationError, match="22:00-07:00"):
            NodeSettings.model_validate({"TOKEN_PLACE_HOURS": "at night"})


class TestVerdict:
    def test_a_machine_at_rest_serves(self) -> None:
        policy = Policy(Hours.parse("00:00-24:00"), max_cpu=0.5, max_gpu=0.5, max_temperature=80)
        assert policy.verdict(at(MONDAY, 12), QUIET) == SERVE

    @pytest.mark.parametrize(
        ("policy", "readings", "reason"),
        [
            (Policy(Hours.parse("22:00-07:00")), QUIET, "22:00-07:00"),
            (Policy(), Readings(on_battery=True), "battery"),
            (Policy(max_cpu=0.5), Readings(cpu_busy=0.8), "80% of the processor"),
            (Policy(max_gpu=0.3), Readings(gpu_busy=0.4), "40% of a GPU"),
            (Policy(max_temperature=80), Readings(temperature=84.2), "84 °C"),
        ],
    )
    def test_each_bound_forbids_with_its_reason(self, policy: Policy, readings: Readings, reason: str) -> None:
        verdict = policy.verdict(at(MONDAY, 12), readings)
        assert not verdict.may_serve
        assert reason in verdict.reason

    def test_what_the_owner_allows_and_what_the_machine_does_not_tell_forbids_nothing(self) -> None:
        everything = Policy(Hours.parse("00:00-24:00"), max_cpu=0.1, max_gpu=0.1, max_temperature=10)
        assert everything.verdict(at(MONDAY, 12), Readings()) == SERVE
        assert Policy(on_battery=True).verdict(at(MONDAY, 12), Readings(on_battery=True)) == SERVE

    def test_bounds_above_one_are_percent(self) -> None:
        assert [part_of(told) for told in (0.5, 50, 1, None)] == [0.5, 0.5, 1, None]


class TestOverTime:
    BUSY = Verdict(False, "busy")
    NIGHT = Verdict(False, "hours", at_once=True)

    def fed(self, *steps: tuple[float, Verdict]) -> list[bool]:
        damped = Damped(busy_for=15, calm_for=60)
        return [damped.feed(verdict, clock).may_serve for clock, verdict in steps]

    def test_a_short_burst_is_no_reason(self) -> None:
        assert self.fed((0, self.BUSY), (10, self.BUSY), (14, SERVE), (20, self.BUSY), (34, self.BUSY)) == [True] * 5

    def test_lasting_work_pauses_and_lasting_calm_resumes(self) -> None:
        steps = [(0, self.BUSY), (15, self.BUSY), (20, SERVE), (60, self.BUSY), (70, SERVE), (129, SERVE), (130, SERVE)]
        assert self.fed(*steps) == [True, False, False, False, False, False, True]

    def test_hours_and_battery_count_at_once_both_ways(self) -> None:
        assert self.fed((0, self.NIGHT), (1, SERVE), (2, self.NIGHT)) == [False, True, False]

    async def test_the_watcher_tells_each_turn_once_with_its_reason(self) -> None:
        told: list[str] = []
        readings = iter([Readings(on_battery=plugged) for plugged in (False, True, True, False, False)])
        done = asyncio.Event()

        def read(_: float) -> Readings:
            found = next(readings, None)
            if found is None:
                done.set()
                return Readings()
            return found

        watching = asyncio.create_task(
            watch(Policy(), read=read, pause=told.append, resume=lambda: told.append("resumed"), every=0)
        )
        async with asyncio.timeout(20):
            await done.wait()
        watching.cancel()
        assert told == ["this machine runs on its battery", "resumed"]


def test_the_number_of_the_last_card_outlives_the_node(tmp_path: Path) -> None:
    from tokenplace.node.home import CardNumbers

    numbers = CardNumbers(tmp_path)
    assert numbers.last() == 0
    numbers.note(1_800_000_000_000)
    assert CardNumbers(tmp_path).last() == 1_800_000_000_000
    (tmp_path / "card-number").write_text("garbage")
    assert numbers.last() == 0
    CardNumbers(tmp_path / "not" / "there").note(5)  # a disk that takes nothing stops nobody

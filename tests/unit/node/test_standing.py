"""Why no work comes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokenplace.node.counts import Counts
from tokenplace.node.demand import Demand
from tokenplace.node.standing import QUIET, LinkStep, RelayState, Report, Situation, Standing

URL = "https://relay.example"
FINE = Demand(listed=True, set_aside=False, elsewhere=(), rivals=0)


def relay(step: LinkStep = LinkStep.CONNECTED, detail: str = "", demand: Demand | None = None) -> RelayState:
    return RelayState(URL, step, detail, demand=demand)


QUIETLY = Situation(relays=(relay(),), models=("m",), warm=True, pauses={}, draining=False, running=0, quiet=2 * QUIET)


def codes(situation: Situation) -> list[str]:
    return [why.code for why in situation.why]


def text(situation: Situation) -> str:
    return " ".join(why.message for why in situation.why)


def test_while_there_is_work_there_is_nothing_to_explain() -> None:
    assert replace(QUIETLY, running=1).why == ()
    assert replace(QUIETLY, running=1).standing is Standing.SERVING


def test_after_a_moment_without_requests_it_says_since_when() -> None:
    assert replace(QUIETLY, quiet=QUIET / 2).why == ()
    assert "for 2 hours" in text(replace(QUIETLY, quiet=7300.0))
    assert "for 1 minute" in text(replace(QUIETLY, quiet=61.0))
    assert codes(QUIETLY) == ["nobody_asks"]


def test_a_relay_that_does_not_take_it_is_named_with_its_reason() -> None:
    away = replace(QUIETLY, relays=(relay(LinkStep.WAITING, "This relay takes nodes with an invitation only"),))
    assert codes(away) == ["not_connected"]
    assert URL in text(away)
    assert "invitation" in text(away)
    assert away.standing is Standing.LOST


def test_one_relay_that_works_is_enough_to_serve_and_the_other_is_still_told() -> None:
    half = replace(QUIETLY, relays=(relay(), relay(LinkStep.WAITING, "cannot be reached")))
    assert half.standing is Standing.SERVING
    assert codes(half) == ["not_connected", "nobody_asks"]


def test_whoever_pauses_is_told_with_why() -> None:
    paused = replace(QUIETLY, pauses={"owner": "by hand.", "policy": "on battery."})
    assert paused.standing is Standing.PAUSED
    assert codes(paused) == ["paused", "paused"]
    assert "on battery" in text(paused)


def test_a_model_that_is_not_warm_a_stop_and_a_relay_that_ends_are_told() -> None:
    assert codes(replace(QUIETLY, warm=False)) == ["warming"]
    assert replace(QUIETLY, warm=False).standing is Standing.WARMING
    assert codes(replace(QUIETLY, draining=True)) == ["stopping"]
    ending = relay()
    ending.draining = True
    assert codes(replace(QUIETLY, relays=(ending,))) == ["relay_draining"]


@pytest.mark.parametrize(
    ("demand", "expected", "says"),
    [
        (replace(FINE, listed=False), ["not_listed", "nobody_asks"], "does not show this node"),
        (replace(FINE, set_aside=True), ["set_aside", "nobody_asks"], "answers of this node failed"),
        (replace(FINE, elsewhere=("big", "bigger")), ["nobody_asks", "model_not_wanted"], "big, bigger"),
        (replace(FINE, rivals=3), ["nobody_asks"], "3 other nodes have the same and a free slot"),
        (replace(FINE, rivals=1), ["nobody_asks"], "1 other node has"),
    ],
)
def test_what_the_relay_s_list_shows_is_part_of_the_reason(demand: Demand, expected: list[str], says: str) -> None:
    listed = replace(QUIETLY, relays=(relay(demand=demand),))
    assert codes(listed) == expected
    assert says in text(listed)


def test_a_report_has_the_counts_and_fits_into_json() -> None:
    counts = Counts(100.0, done=2, tokens=50, seconds=1800.0)
    report = Report.of(QUIETLY, counts, 160.0, node="abcd", version="1", mock=False, slots=4)
    fields = report.fields()
    assert (fields["done"], fields["tokens"], fields["people_hours"], fields["uptime_s"]) == (2, 50, 0.5, 60.0)
    assert fields["relays"][0]["state"] == "connected"
    assert fields["why"][0]["code"] == "nobody_asks"

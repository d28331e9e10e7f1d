"""Counting tokens while they come."""

from __future__ import annotations

from typing import Any

from tokenplace.node.counts import WINDOW, Counts
from tokenplace.wire.ids import JobId

ONE, TWO = JobId("01" * 16), JobId("02" * 16)


class Going:
    """An answer on its way."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] = {}

    def __call__(self) -> dict[str, Any]:
        return self.usage


def test_tokens_count_while_they_come_and_once() -> None:
    counts, answer = Counts(0.0), Going()
    counts.begin(ONE, 10.0)
    counts.watch(ONE, answer)
    answer.usage = {"prompt_tokens": 7, "completion_tokens": 5}
    counts.look(11.0)
    counts.look(11.5)
    assert (counts.prompt_tokens, counts.tokens, counts.running) == (7, 5, 1)
    answer.usage = {"prompt_tokens": 7, "completion_tokens": 9}
    counts.end(ONE, "done", 14.0)
    assert (counts.prompt_tokens, counts.tokens, counts.running, counts.done, counts.seconds) == (7, 9, 0, 1, 4.0)


def test_what_broke_off_has_cost_what_it_cost() -> None:
    counts, answer = Counts(0.0), Going()
    counts.begin(ONE, 1.0)
    counts.watch(ONE, answer)
    answer.usage = {"completion_tokens": 3}
    counts.end(ONE, "cancelled", 2.0)
    counts.begin(TWO, 3.0)
    counts.end(TWO, "aborted", 3.5)
    assert (counts.tokens, counts.done, counts.cancelled, counts.failed) == (3, 0, 1, 1)


def test_the_speed_is_that_of_the_last_seconds_of_all_answers_together() -> None:
    counts, one, two = Counts(0.0), Going(), Going()
    for job, answer in ((ONE, one), (TWO, two)):
        counts.begin(job, 0.0)
        counts.watch(job, answer)
    for second in range(1, 9):
        one.usage = {"completion_tokens": 10 * second}
        two.usage = {"completion_tokens": 20 * second}
        counts.look(float(second))
    assert 29.0 <= counts.speed(8.0) <= 37.0
    assert counts.speed(8.0 + WINDOW + 0.1) == 0.0


def test_what_an_engine_says_wrongly_is_not_counted() -> None:
    counts = Counts(0.0)
    counts.begin(ONE, 0.0)
    counts.watch(ONE, lambda: {"prompt_tokens": "7", "completion_tokens": -4})
    counts.end(ONE, "done", 1.0)
    assert (counts.prompt_tokens, counts.tokens) == (0, 0)


def test_the_last_request_counts_and_before_the_first_the_start() -> None:
    counts = Counts(5.0)
    assert counts.last_asked == 5.0
    counts.begin(ONE, 9.0)
    assert counts.last_asked == 9.0

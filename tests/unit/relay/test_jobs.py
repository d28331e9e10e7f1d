from __future__ import annotations

from itertools import product

import pytest

from tokenplace.relay.jobs import ENDED, IllegalStep, Job, Move, Step
from tokenplace.wire.ids import job_id_of, node_id_of

LEGAL = {
    Step.QUEUED: {Move.OFFER: Step.OFFERED, Move.SEVER: Step.SEVERED},
    Step.OFFERED: {Move.START: Step.RUNNING, Move.RETURN: Step.QUEUED, Move.SEVER: Step.SEVERED},
    Step.RUNNING: {Move.FINISH: Step.DONE, Move.SEVER: Step.SEVERED},
    Step.SEVERED: {Move.OFFER: Step.OFFERED, Move.RETURN: Step.QUEUED},
    Step.DONE: {},
    Step.FAILED: {},
    Step.CANCELLED: {},
}
"""Written down a second time on purpose: a change of the table is a change of the protocol."""


def a_job(step: Step) -> Job:
    return Job(job_id_of(b"j" * 16), node_id_of(b"n" * 32), step)


@pytest.mark.parametrize(("step", "move"), list(product(Step, Move)))
def test_a_move_is_legal_or_raises(step: Step, move: Move) -> None:
    job = a_job(step)
    after = LEGAL[step].get(move)
    if step not in ENDED:
        after = {Move.FAIL: Step.FAILED, Move.CANCEL: Step.CANCELLED}.get(move, after)
    if after is None:
        with pytest.raises(IllegalStep, match=f"A {step} job cannot {move}"):
            job.take(move)
    else:
        assert job.take(move) == a_job(after)
    assert job.step is step


def test_only_the_three_ends_are_ends() -> None:
    assert {step for step in Step if a_job(step).ended} == {Step.DONE, Step.FAILED, Step.CANCELLED}

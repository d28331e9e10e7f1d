"""What may happen to a job, in one table.

            ┌────────return───────┐
            ▼                     │
    ──▶ queued ──offer──▶ offered ──start──▶ running ──finish──▶ done
          │ ▲                │ ▲                │
       sever return      sever offer          sever
          ▼ │                ▼ │                ▼
        severed            severed            severed        one state: the node's link broke, it may come back

    and from every state before an end:  ──fail──▶ failed     ──cancel──▶ cancelled

Nobody assigns a step; `Job.take` moves, or raises IllegalStep. The diagram in the documents is drawn from `TABLE`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from tokenplace.errors import TokenPlaceError
from tokenplace.wire.ids import JobId, NodeId


class Step(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    OFFERED = "offered"
    RUNNING = "running"
    SEVERED = "severed"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Move(StrEnum):
    """What happens to a job."""

    OFFER = "offer"
    RETURN = "return"
    START = "start"
    SEVER = "sever"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"


ENDED = frozenset({Step.DONE, Step.FAILED, Step.CANCELLED})

TABLE: dict[tuple[Step, Move], Step] = {
    (Step.QUEUED, Move.OFFER): Step.OFFERED,
    (Step.OFFERED, Move.RETURN): Step.QUEUED,
    (Step.OFFERED, Move.START): Step.RUNNING,
    (Step.QUEUED, Move.SEVER): Step.SEVERED,
    (Step.OFFERED, Move.SEVER): Step.SEVERED,
    (Step.RUNNING, Move.SEVER): Step.SEVERED,
    (Step.SEVERED, Move.RETURN): Step.QUEUED,
    (Step.SEVERED, Move.OFFER): Step.OFFERED,
    (Step.RUNNING, Move.FINISH): Step.DONE,
    **{(step, Move.FAIL): Step.FAILED for step in Step if step not in ENDED},
    **{(step, Move.CANCEL): Step.CANCELLED for step in Step if step not in ENDED},
}


class IllegalStep(TokenPlaceError):
    """A job was moved in a way its state does not allow: a bug of ours, not of the caller."""

    code = "illegal_step"


@dataclass(frozen=True, slots=True)
class Job:
    """What the relay knows of a job: who is to answer it, and where it stands."""

    id: JobId
    node: NodeId
    step: Step = Step.QUEUED

    def take(self, move: Move) -> Job:
        """The job after `move`. Raises IllegalStep."""
        try:
            return replace(self, step=TABLE[self.step, move])
        except KeyError:
            raise IllegalStep(f"A {self.step} job cannot {move}.") from None

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.step in ENDED

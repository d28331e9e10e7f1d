"""How jobs end: what is believed of a node's last word, and what the relay says itself. Pure."""

from __future__ import annotations

from tokenplace.relay.tickets import INTERRUPTED
from tokenplace.wire.messages import Outcome, Reason

PAUSED = Reason("node_draining", "The node pauses; another one can answer.")
STOPPING = Reason("node_draining", "The node is stopping; another one can answer.")
STOPPED = Reason("node_draining", "The node stopped; another one can answer.")
FORGOTTEN = Reason(Outcome.NODE_LOST, "The node no longer holds this answer.")

_GIVEN = frozenset({Outcome.DONE, Outcome.ABORTED})
"""How a node ends an answer that it gave."""

_OURS_TO_SAY = frozenset({*Outcome, INTERRUPTED}) - {
    *_GIVEN,
    Outcome.CANCELLED,
    Outcome.MOVED,
    Outcome.NODE_REFUSED,
    Outcome.ANSWER_TOO_LARGE,
}
"""What a relay says of a job, and a node cannot know."""

_SENTENCES = {
    Outcome.NODE_LOST: "The node that answered has vanished.",
    Outcome.QUEUE_TIMEOUT: "No slot became free in time; try again later, or another model.",
    Outcome.NO_PROGRESS: "The node held the request without a sign of work.",
    Outcome.CLIENT_STALLED: "The answer waited too long to be read.",
}

_COUNTED = frozenset(outcome.value for outcome in Outcome)


def expired(outcome: Outcome) -> Reason:
    """Of a job that waited too long for something."""
    return Reason(outcome, _SENTENCES[outcome])


def ended(said: Reason, records: int) -> Reason:
    """What a node's END means after so many records: there is no answer without one."""
    if said.code in _OURS_TO_SAY or (said.code in _GIVEN and not records):
        return Reason(Outcome.NODE_LOST, "The node ended an answer that it had not given.")
    return said


def refused(said: Reason) -> Reason:
    """What a node's REJECT means."""
    if said.code == "job_unknown":
        return FORGOTTEN
    if said.code in _OURS_TO_SAY | _GIVEN:
        return Reason(Outcome.NODE_REFUSED, "The node gave a reason that makes no sense.")
    return said


def counted_as(reason: Reason) -> str:
    """The outcome in the metrics, whose labels are a closed set: a node's own codes are one."""
    return reason.code if reason.code in _COUNTED else Outcome.NODE_REFUSED.value

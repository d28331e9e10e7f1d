"""What an end of the link tells its owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tokenplace.wire.ids import JobId, Sid
from tokenplace.wire.messages import Ending, Hello, Reason, Status

# --- at the relay's end -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Introduced:
    """The node answered the challenge; whether it is believed is the owner's to say."""

    hello: Hello


class Accepted(NamedTuple):
    """The node took the offer; records follow from `next_record` on."""

    sid: Sid
    next_record: int


class Rejected(NamedTuple):
    """The node will not do it."""

    sid: Sid
    reason: Reason


class Piece(NamedTuple):
    """One record of the answer."""

    sid: Sid
    number: int
    data: bytes


class Ended(NamedTuple):
    """The node sent everything: `records` in all."""

    sid: Sid
    records: int
    ending: Ending


class Progressed(NamedTuple):
    """The node works on it."""

    sid: Sid


class Reported(NamedTuple):
    """What is free at the node, seen after it knew of offer `seen`."""

    status: Status
    seen: Sid


# --- at the node's end --------------------------------------------------------------------------------------------


class Challenged(NamedTuple):
    """Sign this."""

    nonce: bytes


class Welcomed(NamedTuple):
    """The relay takes us."""

    relay: str


class Offered(NamedTuple):
    """A sealed request to answer."""

    sid: Sid
    sealed: bytes


class Rewound(NamedTuple):
    """Go on with a job at a record, with so many bytes of credit."""

    sid: Sid
    job: JobId
    next_record: int
    allowed: int


class Granted(NamedTuple):
    """`total` bytes may be sent on this sid in all."""

    sid: Sid
    total: int


class Cancelled(NamedTuple):
    """Nobody wants it any more. It may have ended here meanwhile, without the relay having heard so."""

    sid: Sid


# --- at both ------------------------------------------------------------------------------------------------------


class Ponged(NamedTuple):
    """Round-trip time of a ping, in seconds."""

    seconds: float


class Drained(NamedTuple):
    """The other end takes or gives no new jobs."""


RelayEvent = Introduced | Accepted | Rejected | Piece | Ended | Progressed | Reported | Ponged | Drained
NodeEvent = Challenged | Welcomed | Offered | Rewound | Granted | Cancelled | Ponged | Drained

"""What the control payloads and the relay's JSON say, as values. Each packs to and parses from plain JSON fields."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from tokenplace.errors import WireError
from tokenplace.wire.card import Card, b64, unb64
from tokenplace.wire.limits import MAX_STREAMS_PER_NODE

ENGINE_FAILED = "engine_failed"
"""What a node says in the open where its own engine failed and the request was not at fault: the message of an answer
that it aborted, or the code of one that ends without a single record, which another node may still give."""

ENGINE_FULL = "engine_full"
"""The code of one that ends without a record where nothing is broken: other answers take what the engine has."""


class Outcome(StrEnum):
    """How a job ends. Every job ends in exactly one of these."""

    DONE = "done"
    """The sealed end was delivered."""
    ABORTED = "aborted"
    """The node told an error under the seal."""
    CANCELLED = "cancelled"
    """The client left or asked to stop."""
    NODE_LOST = "node_lost"
    """The node vanished after the client had seen part of the answer, or did not come back."""
    NODE_REFUSED = "node_refused"
    """The node would not take it; the notice carries the node's own code."""
    QUEUE_TIMEOUT = "queue_timeout"
    """It waited a minute for a free slot."""
    NO_PROGRESS = "no_progress"
    """The node held it without a sign of work."""
    CLIENT_STALLED = "client_stalled"
    """The client took nothing for three minutes while the answer waited."""
    MOVED = "moved"
    """The client went on with it through another relay."""
    RELAY_STOPPED = "relay_stopped"
    """The relay shut down before the answer was whole."""
    ANSWER_TOO_LARGE = "answer_too_large"
    """The part of the answer the client asked for is no longer kept."""


class Closed(IntEnum):
    """Why a relay closes a link: the WebSocket's closing code (RFC 6455 section 7.4.2)."""

    VIOLATION = 4000
    """The node broke a rule of the link."""
    SUPERSEDED = 4001
    """The same identity came over another link."""
    NOT_ADMITTED = 4003
    """Its signature, host name or invitation will not do."""
    NO_LINK = 4004
    """Nodes do not dial this path."""
    SILENT = 4008
    """Nothing was heard of it."""


def _field(fields: dict[str, Any], name: str, kind: type, *, optional: bool = False) -> Any:
    value = fields.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise WireError(f"The field {name!r} of a control payload is missing or of the wrong type.")
    return value


@dataclass(frozen=True, slots=True)
class Hello:
    """How a node introduces itself."""

    card: Card
    signature: bytes
    authority: str
    slots: int
    token: str | None = None

    def fields(self) -> dict[str, Any]:
        """For the wire."""
        return {
            "card": self.card.text,
            "signature": b64(self.signature),
            "authority": self.authority,
            "slots": self.slots,
            "token": self.token,
        }

    def __repr__(self) -> str:
        return f"Hello(node={self.card.node}, slots={self.slots})"

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Hello:
        """From the wire. Raises WireError."""
        return cls(
            card=Card.parse(_field(fields, "card", str)),
            signature=unb64(_field(fields, "signature", str)),
            authority=_field(fields, "authority", str),
            slots=parse_slots(fields),
            token=_field(fields, "token", str, optional=True),
        )


def parse_slots(fields: dict[str, Any]) -> int:
    """How many jobs a node takes at once. Raises WireError where it is no whole number within the protocol's bounds."""
    slots: int = _field(fields, "slots", int)
    if not 0 <= slots <= MAX_STREAMS_PER_NODE:
        raise WireError(f"A node has 0 to {MAX_STREAMS_PER_NODE} slots.")
    return slots


@dataclass(frozen=True, slots=True)
class Status:
    """What is free at a node, and its new card when that changed."""

    slots: int
    free: int
    card: Card | None = None

    def fields(self) -> dict[str, Any]:
        """For the wire."""
        return {"slots": self.slots, "free": self.free, "card": self.card.text if self.card else None}

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Status:
        """From the wire. Raises WireError."""
        card = _field(fields, "card", str, optional=True)
        slots = parse_slots(fields)
        free: int = _field(fields, "free", int)
        if not 0 <= free <= slots:
            raise WireError("A node cannot have more free slots than slots.")
        return cls(slots=slots, free=free, card=Card.parse(card) if card else None)


@dataclass(frozen=True, slots=True)
class Reason:
    """A code and a sentence: why a node rejects, or why the relay ends a stream."""

    code: str
    message: str = ""

    def fields(self) -> dict[str, Any]:
        """For the wire."""
        return {"code": self.code, "message": self.message}

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Reason:
        """From the wire; long texts are cut, a code is a short word. Raises WireError."""
        code: str = _field(fields, "code", str)
        if not (0 < len(code) <= 40 and code.replace("_", "").isalnum() and code.isascii()):
            raise WireError("A code is a short word.")
        return cls(code=code, message=(_field(fields, "message", str, optional=True) or "")[:400])


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ended at the node, with what is free there now, so that no second frame is needed."""

    reason: Reason
    free: int
    seen: int

    def fields(self) -> dict[str, Any]:
        """For the wire."""
        return {**self.reason.fields(), "free": self.free, "seen": self.seen}

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Ending:
        """From the wire. Raises WireError."""
        free: int = _field(fields, "free", int)
        seen: int = _field(fields, "seen", int)
        if free < 0 or seen < 0:
            raise WireError("Counts are not negative.")
        return cls(reason=Reason.parse(fields), free=free, seen=seen)


@dataclass(frozen=True, slots=True)
class Listing:
    """One node as the relay's directory shows it."""

    card: Card
    slots: int
    free: int
    queued: int

    def fields(self) -> dict[str, Any]:
        """For the wire."""
        return {
            "node": self.card.node,
            "card": self.card.text,
            "slots": self.slots,
            "free": self.free,
            "queued": self.queued,
        }

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Listing:
        """From the wire. Raises WireError."""
        return cls(
            card=Card.parse(_field(fields, "card", str)),
            slots=_field(fields, "slots", int),
            free=_field(fields, "free", int),
            queued=_field(fields, "queued", int),
        )

"""Offers of machines: what a volunteer sends, what is written into the queue, and the summary for everybody.

How to reach the volunteer is for the operator alone: no answer, log or metric has it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from tokenplace.community.faults import bad
from tokenplace.community.texts import Fields, optional_text, text
from tokenplace.community.times import read_time, show_time
from tokenplace.errors import ApiError

CONTACTS = ("email", "matrix", "discord", "website")
_MOST = {"operator_name": 120, "region": 80, "availability": 500, "contact": 254, "hardware": 1000, "notes": 2000}
_MOST_CAPABILITIES, _LONGEST_CAPABILITY = 20, 80

MOST_CONTRIBUTIONS = 5000
MOST_QUEUE_BYTES = 8 * 1024 * 1024


class Decision(StrEnum):
    """What became of an offer. A declined one leaves the queue, and with it everything its sender wrote."""

    PENDING = "pending"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a volunteer says; checked and trimmed."""

    operator_name: str
    region: str
    availability: str
    capabilities: tuple[str, ...]
    contact: Mapping[str, str]
    hardware: str = ""
    notes: str = ""

    @property
    def fingerprint(self) -> str:
        """The same for whoever offers again: it follows from the name and the contact."""
        same = [self.operator_name.casefold(), sorted((way, said.casefold()) for way, said in self.contact.items())]
        return hashlib.sha256(json.dumps(same).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Contribution:
    """One line of the queue."""

    id: str
    offer: Offer
    submitted_at: str
    decision: Decision = Decision.PENDING
    decided_at: str = ""

    def fields(self) -> dict[str, Any]:
        """As the queue has it."""
        offer = self.offer
        fields: dict[str, Any] = {
            "submission_id": self.id,
            "operator_name": offer.operator_name,
            "region": offer.region,
            "availability": offer.availability,
            "capabilities": list(offer.capabilities),
            "contact": dict(offer.contact),
            "submitted_at": self.submitted_at,
        }
        optional = {"hardware": offer.hardware, "notes": offer.notes}
        if self.decision is not Decision.PENDING:
            optional |= {"decision": self.decision.value, "decided_at": self.decided_at}
        return fields | {name: said for name, said in optional.items() if said}

    def accepted(self, now: datetime) -> Contribution:
        """The operator took the offer."""
        return replace(self, decision=Decision.ACCEPTED, decided_at=show_time(now))


def read_offer(fields: Fields) -> Offer:
    """What a volunteer sent; fields that nobody asked for are dropped. Raises ApiError (400)."""
    return Offer(
        operator_name=_text(fields, "operator_name"),
        region=_text(fields, "region"),
        availability=_text(fields, "availability"),
        capabilities=_capabilities(fields.get("capabilities")),
        contact=_contact(fields.get("contact")),
        hardware=optional_text(fields, "hardware", _MOST["hardware"]),
        notes=optional_text(fields, "notes", _MOST["notes"]),
    )


def read_contribution(fields: Fields) -> Contribution:
    """A line of the queue, also one that the original wrote. Raises ValueError."""
    try:
        read_time(fields.get("submitted_at"))
        return Contribution(
            id=text(fields, "submission_id", 64),
            offer=read_offer(fields),
            submitted_at=fields["submitted_at"].strip(),
            decision=Decision(fields.get("decision", Decision.PENDING.value)),
            decided_at=optional_text(fields, "decided_at", 64),
        )
    except (ApiError, AttributeError, TypeError) as error:
        raise ValueError("this is no contribution") from error


def summary(queue: Iterable[Contribution]) -> dict[str, Any]:
    """What everybody may know of the queue: how much is offered, where and what; never by whom."""
    offers = list(queue)
    counts = Counter(capability for each in offers for capability in each.offer.capabilities)
    return {
        "object": "community.contribution_summary",
        "total_submissions": len(offers),
        "regions": sorted({each.offer.region for each in offers}),
        "capability_counts": dict(sorted(counts.items(), key=lambda each: (-each[1], each[0]))),
        "last_submission_at": max((each.submitted_at for each in offers), default=None),
    }


def _text(fields: Fields, name: str) -> str:
    return text(fields, name, _MOST[name])


def _capabilities(value: object) -> tuple[str, ...]:
    if value is None:
        raise bad("`capabilities` is missing.", "capabilities", "missing_required_parameter")
    if not isinstance(value, list):
        raise bad("`capabilities` is a list of texts.", "capabilities", "invalid_type")
    if not value:
        raise bad("`capabilities` names at least one.", "capabilities", "empty_array")
    if len(value) > _MOST_CAPABILITIES:
        raise bad(f"`capabilities` may name {_MOST_CAPABILITIES}.", "capabilities", "array_above_max_length")
    read = (text({"": item}, "", _LONGEST_CAPABILITY, param=f"capabilities[{at}]") for at, item in enumerate(value))
    return tuple(dict.fromkeys(read))


def _contact(value: object) -> dict[str, str]:
    if value is None or value == {}:
        raise bad(f"`contact` needs at least one of {', '.join(CONTACTS)}.", "contact", "missing_required_parameter")
    if not isinstance(value, dict):
        raise bad("`contact` is an object.", "contact", "invalid_type")
    for way in value:
        if way not in CONTACTS:
            raise bad(f"`contact` takes {', '.join(CONTACTS)}.", f"contact.{way[:40]}", "unknown_parameter")
    return {way: text(value, way, _MOST["contact"], param=f"contact.{way}") for way in CONTACTS if way in value}

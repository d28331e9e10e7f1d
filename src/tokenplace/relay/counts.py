"""What a relay has done so far, for its metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tokenplace.relay.histogram import Waits


@dataclass(slots=True)
class Counts:
    """Of jobs and of what they carried. Nothing here names anybody."""

    outcomes: Counter[str] = field(default_factory=Counter)
    offers: int = 0
    rewinds: int = 0
    resumed: int = 0
    pieces: int = 0
    bytes: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    waits: Waits = field(default_factory=Waits)

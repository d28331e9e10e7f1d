"""One other replica, as this one knows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenplace.relay.replicas.messages import ReplicaId
from tokenplace.relay.replicas.wires import Hearing, Sending

if TYPE_CHECKING:
    from tokenplace.relay.replicas.errands import Errand
    from tokenplace.relay.replicas.serving import Reader, Upload


@dataclass(slots=True, eq=False)
class Peer:
    """Everything that is open between a replica and this one."""

    id: ReplicaId
    out: Sending
    last_heard: float
    told: Hearing = field(default_factory=Hearing)
    """Its letters to us."""
    announced: Hearing = field(default_factory=Hearing)
    """Its letters to all."""
    synced: bool = False
    """Whether all of its nodes are known."""
    asked_at: float = float("-inf")
    errands: dict[int, Errand] = field(default_factory=dict)
    """Streams of clients here, by number."""
    readers: dict[int, Reader] = field(default_factory=dict)
    """Streams of clients there."""
    unanswered: int = 0
    """Bytes of requests of clients here that it has not answered yet."""
    uploads: dict[int, Upload] = field(default_factory=dict)
    """Requests of clients there that are still arriving."""

    @property
    def busy(self) -> bool:
        """Whether anything is open."""
        return bool(self.errands or self.readers or self.uploads)

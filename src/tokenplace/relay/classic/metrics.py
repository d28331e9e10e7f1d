"""What /metrics shows of the classic routes: counts, with labels from closed sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tokenplace.relay.classic.room import ClassicRoom


class ClassicCollector:
    """Reads the room when it is asked."""

    def __init__(self, room: ClassicRoom, clock: Callable[[], float]) -> None:
        self._room = room
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """How questions left, what was refused, and what is held."""
        room, mailboxes = self._room, self._room.mailboxes
        left = CounterMetricFamily(
            "tokenplace_relay_classic_questions", "Classic questions, by how they left", labels=["outcome"]
        )
        for how, number in mailboxes.left.items():
            left.add_metric([how.value], number)
        yield left
        failed = CounterMetricFamily("tokenplace_relay_classic_failures", "Classic questions failed", labels=["code"])
        for code, number in mailboxes.faults.items():
            failed.add_metric([code], number)
        yield failed
        refused = CounterMetricFamily("tokenplace_relay_classic_refusals", "Classic requests refused", labels=["code"])
        for code, number in room.refusals.items():
            refused.add_metric([code], number)
        yield refused
        for name, text, value in (
            ("nodes", "Nodes that poll", room.servers(self._clock())),
            ("open", "Classic questions and answers held", len(mailboxes)),
            ("mailboxes", "Clients with something in their mailbox", mailboxes.boxes),
            ("held_bytes", "Memory of the classic routes in use", mailboxes.shares.held),
        ):
            yield GaugeMetricFamily(f"tokenplace_relay_classic_{name}", text, value=value)

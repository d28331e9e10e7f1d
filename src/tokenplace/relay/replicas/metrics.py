"""What /metrics and /healthz say of the other replicas: counts, never a name."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tokenplace.relay.replicas.peering import Peering


class PeeringCollector:
    """Reads a peering when it is asked."""

    def __init__(self, peering: Peering) -> None:
        self._peering = peering

    def collect(self) -> Iterator[Metric]:
        """The metrics, with labels from closed sets."""
        peering, counted = self._peering, self._peering.counted
        for name, text, sent, heard in (
            ("messages", "Messages over the store", counted.sent, counted.heard),
            ("bytes", "Bytes over the store", counted.sent_bytes, counted.heard_bytes),
        ):
            moved = CounterMetricFamily(f"tokenplace_relay_bus_{name}", text, labels=["direction"])
            moved.add_metric(["out"], sent)
            moved.add_metric(["in"], heard)
            yield moved
        for name, text, number in (
            ("gaps", "Times that messages of another replica were missed", counted.gaps),
            ("unreadable", "Messages that could not be read", counted.unreadable),
            ("outages", "Times that the store was lost", counted.outages),
        ):
            yield CounterMetricFamily(f"tokenplace_relay_bus_{name}", text, value=number)
        yield GaugeMetricFamily("tokenplace_relay_bus_up", "1 while the store carries messages", value=peering.up)
        yield GaugeMetricFamily(
            "tokenplace_relay_bus_lag_seconds", "From a beat to its echo over the store", value=counted.lag
        )
        jobs = CounterMetricFamily(
            "tokenplace_relay_remote_jobs", "What was asked of other replicas, or by them", labels=["side", "what"]
        )
        for what in ("submit", "attach", "cancel", "lost"):
            jobs.add_metric(["asked", what], peering.errands.counts[what])
        for what in ("submit", "attach"):
            jobs.add_metric(["served", what], peering.serving.counts[what])
        yield jobs
        streams = GaugeMetricFamily("tokenplace_relay_remote_streams", "Streams between replicas now", labels=["side"])
        streams.add_metric(["asked"], sum(len(peer.errands) for peer in peering.peers.values()))
        streams.add_metric(["served"], sum(len(peer.readers) for peer in peering.peers.values()))
        yield streams
        yield GaugeMetricFamily("tokenplace_relay_replicas", "Other replicas in reach", value=len(peering.peers))
        yield GaugeMetricFamily(
            "tokenplace_relay_nodes_elsewhere", "Nodes suggested at other replicas only", value=len(peering.elsewhere)
        )

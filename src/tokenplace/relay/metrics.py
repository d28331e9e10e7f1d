"""What /metrics shows: counts and states, never a name, a path or a size of one request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tokenplace.relay.broker import Broker
from tokenplace.relay.jobs import Step

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class BrokerCollector:
    """Reads the broker when it is asked, so that counting costs nothing on the way of a piece."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def collect(self) -> Iterator[Metric]:
        """The metrics, with labels from closed sets."""
        broker, counts = self._broker, self._broker.counts
        ended = CounterMetricFamily("tokenplace_relay_jobs", "Jobs ended, by outcome", labels=["outcome"])
        for outcome, number in counts.outcomes.items():
            ended.add_metric([outcome], number)
        yield ended
        refused = CounterMetricFamily("tokenplace_relay_refusals", "Requests refused at the door", labels=["code"])
        for code, number in counts.refusals.items():
            refused.add_metric([code], number)
        yield refused
        for name, text, number in (
            ("offers", "Requests offered to nodes", counts.offers),
            ("rewinds", "Streams asked to go on at a record", counts.rewinds),
            ("resumed", "Clients that came back to a stream", counts.resumed),
            ("pieces", "Sealed pieces forwarded", counts.pieces),
            ("bytes", "Sealed bytes forwarded", counts.bytes),
        ):
            yield CounterMetricFamily(f"tokenplace_relay_{name}", text, value=number)
        steps = dict.fromkeys(Step, 0)
        for ticket in broker.tickets.values():
            steps[ticket.job.step] += 1
        live = GaugeMetricFamily("tokenplace_relay_jobs_live", "Jobs that have not ended, by step", labels=["step"])
        for step in (Step.QUEUED, Step.OFFERED, Step.RUNNING, Step.SEVERED):
            live.add_metric([step.value], steps[step])
        yield live
        yield GaugeMetricFamily("tokenplace_relay_nodes", "Nodes connected", value=len(broker.roster))
        yield GaugeMetricFamily("tokenplace_relay_held_bytes", "Waiting requests in memory", value=broker.held_bytes)
        yield GaugeMetricFamily("tokenplace_relay_draining", "1 while shutting down", value=float(broker.draining))


class Metrics:
    """A registry of this relay alone; `more` is what a guest in the same process counts."""

    def __init__(self, broker: Broker, more: Callable[[], bytes]) -> None:
        self._more = more
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(BrokerCollector(broker))

    def render(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self._registry) + self._more()

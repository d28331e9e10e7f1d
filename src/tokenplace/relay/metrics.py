"""What /metrics shows: counts and states, never a name, a path or a size of one request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenplace.relay.admission import Admission
from tokenplace.relay.broker import Broker
from tokenplace.relay.histogram import Histogram
from tokenplace.relay.jobs import Step
from tokenplace.relay.limits import Limiter
from tokenplace.relay.traffic import Traffic

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, buckets=histogram.cumulative(), sum_value=histogram.total)


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
        yield _histogram("tokenplace_relay_queue_seconds", "From arrival to a node", counts.waits.queue)
        yield _histogram("tokenplace_relay_first_piece_seconds", "Arrival to first piece", counts.waits.first_piece)
        yield _histogram("tokenplace_relay_job_seconds", "From arrival to the end", counts.waits.job)
        steps = dict.fromkeys(Step, 0)
        for ticket in broker.tickets.values():
            steps[ticket.job.step] += 1
        live = GaugeMetricFamily("tokenplace_relay_jobs_live", "Jobs that have not ended, by step", labels=["step"])
        for step in (Step.QUEUED, Step.OFFERED, Step.RUNNING, Step.SEVERED):
            live.add_metric([step.value], steps[step])
        yield live
        yield GaugeMetricFamily("tokenplace_relay_nodes", "Nodes that clients are sent to", value=len(broker.roster))
        yield GaugeMetricFamily("tokenplace_relay_held_bytes", "Waiting requests in memory", value=broker.held_bytes)
        yield GaugeMetricFamily("tokenplace_relay_draining", "1 while shutting down", value=float(broker.draining))


class DoorCollector:
    """Reads what the doors counted: requests, limits, nodes turned away."""

    def __init__(self, traffic: Traffic, admission: Admission, limiter: Limiter) -> None:
        self._traffic = traffic
        self._admission = admission
        self._limiter = limiter

    def collect(self) -> Iterator[Metric]:
        """The metrics, with labels from closed sets: no path, no address, no id."""
        requests = CounterMetricFamily(
            "tokenplace_relay_requests", "Requests ended, by route and status", labels=["route", "status"]
        )
        for (route, status), number in self._traffic.requests.items():
            requests.add_metric([route.value, str(status)], number)
        yield requests
        seconds = HistogramMetricFamily(
            "tokenplace_relay_request_seconds", "From a request's head to the end of its answer", labels=["route"]
        )
        for route, histogram in self._traffic.seconds.items():
            seconds.add_metric([route.value], histogram.cumulative(), histogram.total)
        yield seconds
        limited = CounterMetricFamily("tokenplace_relay_limited", "Requests over a limit", labels=["budget"])
        for budget, number in self._limiter.refused.items():
            limited.add_metric([budget], number)
        yield limited
        turned_away = CounterMetricFamily("tokenplace_relay_nodes_refused", "Nodes turned away", labels=["rule"])
        for rule, number in self._admission.refused.items():
            turned_away.add_metric([rule], number)
        yield turned_away
        yield GaugeMetricFamily("tokenplace_relay_links", "Links of nodes", value=self._admission.open_links)


class Metrics:
    """A registry of this relay alone; `more` is what a guest in the same process counts."""

    def __init__(
        self,
        broker: Broker,
        more: Callable[[], bytes],
        traffic: Traffic,
        admission: Admission,
        limiter: Limiter,
    ) -> None:
        self._more = more
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(BrokerCollector(broker))
        self._registry.register(DoorCollector(traffic, admission, limiter))

    def add(self, collector: Collector) -> None:
        """Show what another room of this relay counts."""
        self._registry.register(collector)

    def families(self) -> Iterator[Metric]:
        """What is counted in this process, apart from the guest's."""
        yield from self._registry.collect()

    def render(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self._registry) + self._more()

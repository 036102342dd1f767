"""Prometheus metrics about an engine's replicas: their number, the requests sent to each, and the reasons why
each replica was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.engines.ray.engine import RemoteEngine
from server.engines.ray.placement import REASONS


class ReplicaCollector(Collector):
    """Collects the metrics of one engine's replicas. The time series of a replica ends when the replica
    stops.
    """

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """Return no metric descriptions, since no replica is known yet when this collector is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the current metrics of all replicas."""
        fleet, placement = self._engine.fleet, self._engine.placement
        replicas = GaugeMetricFamily("oneseek_ray_replicas", "Number of replicas that take requests")
        replicas.add_metric((), len(fleet.known))
        yield replicas
        served = CounterMetricFamily(
            "oneseek_ray_replica_requests", "Requests that were sent to a replica", labels=("replica",)
        )
        for name, count in list(fleet.served.items()):
            served.add_metric((name,), count)
        yield served
        reasons = CounterMetricFamily(
            "oneseek_ray_placements", "Requests by the reason for their replica", labels=("reason",)
        )
        for reason in REASONS:
            reasons.add_metric((reason,), placement.reasons[reason])
        yield reasons
        for name, text, value in (
            ("known_prefixes", "Requests with a prompt prefix that a replica had computed", placement.known),
            ("retries", "Requests retried because their replica was lost", self._engine.retried),
        ):
            counter = CounterMetricFamily(f"oneseek_ray_{name}", text)
            counter.add_metric((), value)
            yield counter

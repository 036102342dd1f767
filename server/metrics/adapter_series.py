"""Holds the metrics of each adapter and of each of its versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from server.metrics.buckets import BETWEEN_TOKENS, FIRST_TOKEN, LOAD, SECONDS
from server.metrics.families import CounterFamily, HistogramFamily, MetricFamily, SeriesNames

_BOTH = ("adapter", "version")


@dataclass(frozen=True, slots=True)
class AdapterSeries:
    """All metrics with the label `adapter`, each with all its series. Update them on the event loop only."""

    requests: CounterFamily
    duration: HistogramFamily
    queue: HistogramFamily
    prefill: HistogramFamily
    first_token: HistogramFamily
    between_tokens: HistogramFamily
    tokens: CounterFamily
    loads: CounterFamily
    load_seconds: HistogramFamily
    evictions: CounterFamily
    rollouts: CounterFamily
    shadows: CounterFamily
    shadow_first_token: HistogramFamily
    shadow_between_tokens: HistogramFamily

    def of_versions(self) -> tuple[MetricFamily, ...]:
        """The metrics that have a series for each version of an adapter."""
        return (
            self.requests, self.first_token, self.between_tokens, self.tokens, self.rollouts, self.shadows,
            self.shadow_first_token, self.shadow_between_tokens,
        )  # fmt: skip

    def of_aliases(self) -> tuple[MetricFamily, ...]:
        """The metrics that have one series for all versions of an alias."""
        return self.duration, self.queue, self.prefill, self.loads, self.load_seconds, self.evictions

    def families(self) -> tuple[MetricFamily, ...]:
        """Return all metrics with the label `adapter`."""
        return self.of_versions() + self.of_aliases()


def make_adapter_series(registry: CollectorRegistry, names: SeriesNames) -> AdapterSeries:
    """Create the metrics of adapters, and register them in `registry`. `names` decides which adapters have
    series of their own.
    """

    def counter(name: str, text: str, *labels: str) -> CounterFamily:
        return CounterFamily(f"oneseek_{name}", text, labels, registry, names)

    def seconds(name: str, text: str, bounds: Sequence[float], *labels: str) -> HistogramFamily:
        return HistogramFamily(f"oneseek_{name}_seconds", text, labels, bounds, registry, names)

    return AdapterSeries(
        requests=counter("requests", "Answered HTTP requests", "endpoint", *_BOTH, "language", "status"),
        duration=seconds(
            "request_duration",
            "Time from a request's arrival to the last byte",
            SECONDS,
            "endpoint",
            "adapter",
        ),
        queue=seconds(
            "queue", "Time from arrival at the engine to the first engine step", SECONDS, "adapter"
        ),
        prefill=seconds("prefill", "Time from the first engine step to the first token", SECONDS, "adapter"),
        first_token=seconds(
            "time_to_first_token", "Time from a request's arrival to its first token", FIRST_TOKEN, *_BOTH
        ),
        between_tokens=seconds(
            "inter_token_latency", "Time between two consecutive deltas of an answer", BETWEEN_TOKENS, *_BOTH
        ),
        tokens=counter("tokens", "Tokens, by kind (prompt, cached or completion)", *_BOTH, "kind"),
        loads=counter("adapter_loads", "Loads of adapters into the engine", "adapter", "outcome"),
        load_seconds=seconds(
            "adapter_load", "Time to load an adapter into the engine", LOAD, "adapter", "outcome"
        ),
        evictions=counter("adapter_evictions", "Adapters evicted to make room for others", "adapter"),
        rollouts=counter("rollouts", "Canaries and shadows that the server ended", *_BOTH, "outcome"),
        shadows=counter("shadow_requests", "Copies of requests sent to a shadow version", *_BOTH, "outcome"),
        shadow_first_token=seconds(
            "shadow_time_to_first_token",
            "Time from the engine's call to the first token of a shadow version",
            FIRST_TOKEN,
            *_BOTH,
        ),
        shadow_between_tokens=seconds(
            "shadow_inter_token_latency",
            "Mean time between the tokens of an answer by a shadow version",
            BETWEEN_TOKENS,
            *_BOTH,
        ),
    )

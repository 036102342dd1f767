"""Reads gauges from the engine at each scrape, so that the series of an unloaded adapter disappears."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from server.metrics.board import OFFERED
from server.metrics.engine_state import EngineInfo, EngineState
from server.metrics.families import MetricFamily
from server.metrics.gateways import RESIDENCY, GatewayView
from server.metrics.shown import MOST_USED

FOR_GATEWAYS = frozenset(
    {
        "vllm:lora_requests_info",
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:prefix_cache_queries",
        "vllm:prefix_cache_hits",
        "vllm:num_preemptions",
        *RESIDENCY,
    }
)
"""Metrics that this server makes from an engine's state in place of vLLM's own, whose labels hold digests."""
_ABSENT = {
    "num_requests_swapped": "Always 0; exported for dashboards made for older versions of vLLM",
    "cpu_cache_usage_perc": "Always 0; exported for dashboards made for older versions of vLLM",
}
"""Metrics that only dashboards for older versions of vLLM query, with their help texts. Each is always 0."""


class ReportingEngine(Protocol):
    """An engine, as metrics see it: its constant properties and its state."""

    @property
    def info(self) -> EngineInfo:
        """The engine's properties that never change."""
        ...

    def state(self) -> EngineState:
        """Return a snapshot of the engine's state. Thread-safe."""
        ...


class MetricSource(Protocol):
    """Metrics to export: those of the whole server, or those of one base."""

    @property
    def plain(self) -> Collector:
        """The registry with the metrics that prometheus-client renders."""
        ...

    def families(self) -> Sequence[MetricFamily]:
        """The metrics that render their own lines for a scrape."""
        ...


class VllmCollector(Collector):
    """vLLM's own metrics, which it registers in prometheus-client's default registry."""

    def describe(self) -> Iterable[Metric]:
        """Return no metrics in advance, since vLLM creates its metrics when it starts."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield every metric of vLLM that this server does not export itself."""
        for metric in REGISTRY.collect():
            if metric.name.startswith("vllm:") and metric.name not in FOR_GATEWAYS | OFFERED:
                yield metric


class BaseCollectors(CollectorRegistry):
    """Exports the metrics of a server and of all its bases, each metric once.

    If there are several bases, every sample has the label `base`; it is `none` for metrics of no base.
    """

    def __init__(self, server: MetricSource) -> None:
        super().__init__()
        self._server = server
        self._bases: dict[str, MetricSource] = {}

    def add(self, base: str, measured: MetricSource) -> None:
        """Export the metrics of a base too."""
        self._bases[base] = measured

    def families(self) -> Iterator[Sequence[tuple[str | None, MetricFamily]]]:
        """Yield each metric that renders its own lines, for every base with the base's name. The name is None
        if there is only one base.
        """
        if not self._bases:
            yield from ([(None, family)] for family in self._server.families())
            return
        every = {"none": self._server, **self._bases}
        for same in zip(*(measured.families() for measured in every.values()), strict=True):
            yield list(zip(every, same, strict=True))

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that prometheus-client renders, each with the samples of all bases."""
        if not self._bases:
            yield from self._server.plain.collect()
            return
        families: dict[str, Metric] = {}
        for base, measured in (("none", self._server), *self._bases.items()):
            for family in measured.plain.collect():
                found = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                found.samples += [_of_base(sample, base) for sample in family.samples]
        for family in families.values():
            # The engines of vLLM in one process share their metrics, which each of them exports.
            unique = {(one.name, *sorted(one.labels.items())): one for one in reversed(family.samples)}
            family.samples = list(reversed(unique.values()))
            yield family


def _of_base(sample: Sample, base: str) -> Sample:
    labels = sample.labels
    if "base" in labels or "model_name" in labels:
        return sample
    return sample._replace(labels={**labels, "base": base})


class EngineCollectors(Collector):
    """Combines the collectors of all bases' engines, so that each metric is exported once."""

    def __init__(self) -> None:
        self._collectors: list[Collector] = []

    def add(self, collector: Collector) -> None:
        """Add `collector`, unless it was added before."""
        if collector not in self._collectors:
            self._collectors.append(collector)

    def describe(self) -> Iterable[Metric]:
        """Return no metrics in advance, since engines are read only after they have started."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all engines, each metric once with the samples of every engine."""
        families: dict[str, Metric] = {}
        for collector in tuple(self._collectors):
            for family in collector.collect():
                if family.name in families:
                    families[family.name].samples += family.samples
                else:
                    families[family.name] = family
        return families.values()


class EngineCollector(Collector):
    """Exports an engine's state as metrics, under OneSeek's names and the `vllm:` names that LoRA gateways
    read.

    `served` holds the adapters whose names may appear; other digests appear as `unknown`. `kept` returns the
    digests that are never evicted, and `uses` how often an adapter was used recently.
    """

    def __init__(
        self,
        engine: ReportingEngine,
        base: str,
        served: ServedAdapters,
        kept: Callable[[], Collection[str]],
        uses: Callable[[str, str], float],
    ) -> None:
        self._engine = engine
        self._base = base
        self._served = served
        self._kept = kept
        self._uses = uses

    def describe(self) -> Iterable[Metric]:
        """Return no metrics in advance, since the engine is read only after it has started."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the engine's current state as metrics."""
        state, names = self._engine.state(), self._served.snapshot
        adapters = names.adapters()
        aliases = {adapter.digest: adapter.alias for adapter in adapters} | {"": "base"}
        loaded = GaugeMetricFamily("oneseek_base_loaded", "1 if a base is in memory", labels=("base",))
        loaded.add_metric((self._base,), float(state.loaded))
        yield loaded
        yield from self._queues(state, aliases)
        yield from self._memory(state)
        yield from self._adapters(state, adapters)
        yield from self._for_gateways(state)
        view = GatewayView(self._base, self._engine.info, state, names, self._kept())
        yield from view.families()

    def _queues(self, state: EngineState, aliases: Mapping[str, str]) -> Iterable[Metric]:
        for name, what, counts in (
            ("running", "in the engine's running batch", state.running),
            ("waiting", "waiting in the engine's queue", state.waiting),
        ):
            gauge = GaugeMetricFamily(
                f"oneseek_requests_{name}", f"Requests {what}", labels=("base", "adapter")
            )
            by_alias: dict[str, int] = {"base": 0}
            for digest, count in counts.items():
                alias = aliases.get(digest, "unknown")
                by_alias[alias] = by_alias.get(alias, 0) + count
            for alias, count in by_alias.items():
                gauge.add_metric((self._base, alias), count)
            yield gauge

    def _memory(self, state: EngineState) -> Iterable[Metric]:
        usage = GaugeMetricFamily(
            "oneseek_kv_cache_usage_ratio", "Fraction of the KV cache in use, 0 to 1", labels=("base",)
        )
        usage.add_metric((self._base,), _usage(state))
        yield usage
        age = GaugeMetricFamily(
            "oneseek_step_age_seconds",
            "Seconds since the current engine step began; 0 if the engine is idle",
            labels=("base",),
        )
        age.add_metric((self._base,), state.progress)
        yield age
        for name, text, value in (
            ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", state.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens found in the prefix cache", state.prefix_hits),
            ("preemptions", "Running requests preempted because the KV cache was full", state.preemptions),
            ("unread_answers", "Answers cut off because their clients did not read them", state.unread),
            ("fair_preemptions", "Running requests preempted for another API key or adapter", state.made_way),
        ):
            counter = CounterMetricFamily(f"oneseek_{name}", text, labels=("base",))
            counter.add_metric((self._base,), value)
            yield counter

    def _adapters(self, state: EngineState, adapters: Sequence[Adapter]) -> Iterable[Metric]:
        gauge = GaugeMetricFamily(
            "oneseek_adapter_resident",
            "1 if an adapter's weights are in a tier (device or host)",
            labels=("adapter", "version", "digest", "tier"),
        )
        there = [adapter for adapter in adapters if adapter.digest in state.resident]
        away = [adapter for adapter in adapters if adapter.digest not in state.resident]
        for adapter in (
            *there,
            *heapq.nlargest(MOST_USED, away, key=lambda one: self._uses(one.alias, one.version)),
        ):
            where = state.resident.get(adapter.digest)
            for tier in self._engine.info.tiers:
                labels = (adapter.alias, adapter.version, adapter.digest, tier)
                gauge.add_metric(labels, float(where == tier))
        yield gauge
        for name, text, value in (
            ("served", "Adapter versions that are served", len(adapters)),
            (
                "damaged",
                "Served adapter versions that can no longer be loaded",
                sum(one.problem is not None for one in adapters),
            ),
        ):
            gauge = GaugeMetricFamily(f"oneseek_adapters_{name}", text, labels=("base",))
            gauge.add_metric((self._base,), value)
            yield gauge

    def _for_gateways(self, state: EngineState) -> Iterable[Metric]:
        for name, text, value in (
            ("num_requests_running", "Requests in the engine's running batch", sum(state.running.values())),
            ("num_requests_waiting", "Requests waiting in the engine's queue", sum(state.waiting.values())),
            ("kv_cache_usage_perc", "Fraction of the KV cache in use, 0 to 1", _usage(state)),
            ("gpu_cache_usage_perc", "vllm:kv_cache_usage_perc under its older name", _usage(state)),
            *((name, text, 0.0) for name, text in _ABSENT.items()),
        ):
            gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=("model_name",))
            gauge.add_metric((self._base,), value)
            yield gauge
        for name, text, value in (
            ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", state.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens found in the prefix cache", state.prefix_hits),
            (
                "num_preemptions",
                "Running requests preempted because the KV cache was full",
                state.preemptions,
            ),
        ):
            counter = CounterMetricFamily(f"vllm:{name}", text, labels=("model_name",))
            counter.add_metric((self._base,), value)
            yield counter


def _usage(state: EngineState) -> float:
    """Return the fraction of the KV cache that requests use, 0 to 1, without prefixes that are only cached
    for reuse.
    """
    return (state.kv_tokens - state.kv_cached) / state.kv_capacity if state.kv_capacity else 0.0

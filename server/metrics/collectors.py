"""Gauges read from the engine at each scrape, so that no label set outlives what it describes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from adapters.lora.manifest import Adapter
from server.metrics.board import OFFERED
from server.metrics.engine_state import EngineInfo, EngineState

FOR_GATEWAYS = frozenset(
    {
        "vllm:lora_requests_info",
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:prefix_cache_queries",
        "vllm:prefix_cache_hits",
        "vllm:num_preemptions",
    }
)
"""What both engines offer from their states; vLLM's own of these names know adapters by their digests."""
_ABSENT = {
    "num_requests_swapped": "Requests swapped out to the CPU: none ever, as in vLLM today",
    "cpu_cache_usage_perc": "KV memory in use on the CPU, apart from the engine's own: none",
}
"""What boards made for older versions of vLLM query."""


class ReportingEngine(Protocol):
    """The part of an engine that metrics read."""

    @property
    def info(self) -> EngineInfo:
        """What never changes."""
        ...

    def state(self) -> EngineState:
        """A snapshot, from any thread."""
        ...


class VllmCollector(Collector):
    """What vLLM says of itself: its metrics live in the process's own registry, among others'."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: vLLM makes its metrics when it starts."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every metric of vLLM's that is not offered otherwise."""
        for metric in REGISTRY.collect():
            if metric.name.startswith("vllm:") and metric.name not in FOR_GATEWAYS | OFFERED:
                yield metric


class BaseCollectors(CollectorRegistry):
    """What is measured of a server and of each of its bases, each family once.

    If there are several bases, every sample has the label `base`, which is `none` for what is about none.
    """

    def __init__(self, server: Collector) -> None:
        super().__init__()
        self._server = server
        self._bases: dict[str, Collector] = {}

    def add(self, base: str, collector: Collector) -> None:
        """Export what `collector` says of a base."""
        self._bases[base] = collector

    def collect(self) -> Iterator[Metric]:
        """Every family, with the samples of all."""
        if not self._bases:
            yield from self._server.collect()
            return
        families: dict[str, Metric] = {}
        for base, collector in (("none", self._server), *self._bases.items()):
            for family in collector.collect():
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
    """The collectors of every base's engine as one, so that a family of metrics is exported once."""

    def __init__(self) -> None:
        self._collectors: list[Collector] = []

    def add(self, collector: Collector) -> None:
        """Export what `collector` says; one that was added already is not added again."""
        if collector not in self._collectors:
            self._collectors.append(collector)

    def describe(self) -> Iterable[Metric]:
        """Nothing: no engine is asked before it has started."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The metrics of every engine, each family with the samples of all."""
        families: dict[str, Metric] = {}
        for collector in tuple(self._collectors):
            for family in collector.collect():
                if family.name in families:
                    families[family.name].samples += family.samples
                else:
                    families[family.name] = family
        return families.values()


class EngineCollector(Collector):
    """What an engine says of itself, under our names and under the `vllm:` ones that LoRA gateways read.

    `adapters` gives every adapter that may appear; a digest that none of them has shows as `unknown`.
    """

    def __init__(self, engine: ReportingEngine, base: str, adapters: Callable[[], Iterable[Adapter]]) -> None:
        self._engine = engine
        self._base = base
        self._adapters = adapters

    def describe(self) -> Iterable[Metric]:
        """Nothing: the engine is not asked before it has started."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One snapshot of the engine as metrics."""
        state, adapters = self._engine.state(), tuple(self._adapters())
        aliases = {adapter.digest: adapter.alias for adapter in adapters} | {"": "base"}
        loaded = GaugeMetricFamily("oneseek_base_loaded", "Whether a base is in memory", labels=("base",))
        loaded.add_metric((self._base,), float(state.loaded))
        yield loaded
        yield from self._queues(state, aliases)
        yield from self._memory(state)
        yield self._resident(state, adapters)
        yield from self._for_gateways(state, aliases)

    def _queues(self, state: EngineState, aliases: Mapping[str, str]) -> Iterable[Metric]:
        for name, what, counts in (
            ("running", "being worked on", state.running),
            ("waiting", "waiting", state.waiting),
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
        usage = GaugeMetricFamily("oneseek_kv_cache_usage_ratio", "KV memory in use", labels=("base",))
        usage.add_metric((self._base,), _usage(state))
        yield usage
        for name, text, value in (
            ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", state.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens found in the prefix cache", state.prefix_hits),
            ("preemptions", "Running requests put back for want of KV memory", state.preemptions),
            ("unread_answers", "Answers ended because their clients did not read them", state.unread),
            ("fair_preemptions", "Running requests put back for another key or adapter", state.made_way),
        ):
            counter = CounterMetricFamily(f"oneseek_{name}", text, labels=("base",))
            counter.add_metric((self._base,), value)
            yield counter

    def _resident(self, state: EngineState, adapters: Iterable[Adapter]) -> Metric:
        gauge = GaugeMetricFamily(
            "oneseek_adapter_resident",
            "Whether an adapter's weights are in a tier",
            labels=("adapter", "version", "digest", "tier"),
        )
        for adapter in adapters:
            where = state.resident.get(adapter.digest)
            for tier in self._engine.info.tiers:
                labels = (adapter.alias, adapter.version, adapter.digest, tier)
                gauge.add_metric(labels, float(where == tier))
        return gauge

    def _for_gateways(self, state: EngineState, aliases: Mapping[str, str]) -> Iterable[Metric]:
        lora = GaugeMetricFamily(
            "vllm:lora_requests_info",
            "Adapters with requests; the value is the time of the scrape",
            labels=("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
        )
        running, waiting = (
            ",".join(
                sorted(
                    {aliases.get(digest, "unknown") for digest, count in counts.items() if digest and count}
                )
            )
            for counts in (state.running, state.waiting)
        )
        lora.add_metric((str(self._engine.info.max_adapters), running, waiting), time.time())
        yield lora
        for name, text, value in (
            ("num_requests_running", "Requests being worked on", sum(state.running.values())),
            ("num_requests_waiting", "Requests waiting", sum(state.waiting.values())),
            ("kv_cache_usage_perc", "KV memory in use, 1 is all", _usage(state)),
            ("gpu_cache_usage_perc", "The same under its older name", _usage(state)),
            *((name, text, 0.0) for name, text in _ABSENT.items()),
        ):
            gauge = GaugeMetricFamily(f"vllm:{name}", text, labels=("model_name",))
            gauge.add_metric((self._base,), value)
            yield gauge
        for name, text, value in (
            ("prefix_cache_queries", "Prompt tokens looked up in the prefix cache", state.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens found in the prefix cache", state.prefix_hits),
            ("num_preemptions", "Running requests put back for want of KV memory", state.preemptions),
        ):
            counter = CounterMetricFamily(f"vllm:{name}", text, labels=("model_name",))
            counter.add_metric((self._base,), value)
            yield counter


def _usage(state: EngineState) -> float:
    """What is in use for requests; what is only kept for reuse is freed on demand and does not count."""
    return (state.kv_tokens - state.kv_cached) / state.kv_capacity if state.kv_capacity else 0.0

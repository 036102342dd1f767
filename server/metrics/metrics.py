"""Every metric of the server, in one registry of its own.

Labels come from the registry of adapters and from the routes, never from a client. Gauges are read from the
engine when scraped, by `server.metrics.collectors`. Names and buckets are in docs/metrics.md.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from adapters.lora.manifest import Adapter
from server.config.version import oneseek_version
from server.exchange import Exchange
from server.metrics.board import Board, BoardSeries
from server.metrics.buckets import BATCH, BETWEEN_TOKENS, CONFIDENCE, FIRST_TOKEN, LOAD, ROUTE, SECONDS, STEP
from server.metrics.collectors import BaseCollectors, EngineCollectors
from server.metrics.engine_state import EngineInfo
from server.metrics.histogram import TokenHistogram
from server.metrics.observers import LoadMetrics, StepMetrics
from server.metrics.pace import Pace
from server.request import Delta, FinishReason

NO_ALIASES = frozenset({"base", "blend", "external", "none", "unknown"})
"""What the label `adapter` says where no alias answers."""
UNCOUNTED = frozenset({"/live", "/ready", "/health", "/ping", "/metrics"})
"""Probes and scrapes, which would drown the rest."""


class Metrics:
    """All counters and histograms of a server. Thread-safe, as prometheus-client is.

    `process` adds those of the operating system's process, which a server has once.
    """

    def __init__(self, *, process: bool = True) -> None:
        # A second series for each one, of the time when it began, that no dashboard reads.
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self.exposed = BaseCollectors(self.registry)
        """What `/metrics` exports: the same, and what was measured of each base by itself."""
        self._bases: dict[str, Metrics] = {}
        self.engines = EngineCollectors()
        self.registry.register(self.engines)
        if process:
            ProcessCollector(registry=self.registry)
        self.board = Board(self.registry)
        self._make_request_metrics()
        self._make_engine_metrics()
        self._make_rollout_metrics()
        self._adapters: dict[str, Callable[[], Iterable[Adapter]]] = {}
        """Base → the adapters that are served on it."""
        self._serving: dict[int, tuple[str, str]] = {}
        """Exchange → the alias and version that answers it."""
        self._in_use = Counts[tuple[str, str]]()
        self._of_versions = (
            self.requests, self.first_token, self.between_tokens, self.tokens, self.rollouts, self.shadows,
            self.shadow_first_token, self.shadow_between_tokens,
        )  # fmt: skip
        self._of_aliases = (
            self.duration,
            self.queue,
            self.prefill,
            self.loads,
            self.load_seconds,
            self.evictions,
        )

    def _make_request_metrics(self) -> None:
        r = self.registry
        names = ("adapter", "version")
        self.requests = Counter(
            "oneseek_requests", "Requests answered", ("endpoint", *names, "language", "status"), registry=r
        )
        self.duration = Histogram(
            "oneseek_request_duration_seconds", "From arrival to the last byte", ("endpoint", "adapter"),
            buckets=SECONDS, registry=r,
        )  # fmt: skip
        self.queue = Histogram(
            "oneseek_queue_seconds", "From arrival at the engine to the first step", ("adapter",),
            buckets=SECONDS, registry=r,
        )  # fmt: skip
        self.prefill = Histogram(
            "oneseek_prefill_seconds", "From the first step to the first token", ("adapter",),
            buckets=SECONDS, registry=r,
        )  # fmt: skip
        self.first_token = Histogram(
            "oneseek_time_to_first_token_seconds", "From arrival to the first token", names,
            buckets=FIRST_TOKEN, registry=r,
        )  # fmt: skip
        self.between_tokens = TokenHistogram(
            "oneseek_inter_token_latency_seconds",
            "Between two deltas of one answer",
            names,
            BETWEEN_TOKENS,
            r,
        )
        self.tokens = Counter("oneseek_tokens", "Tokens", (*names, "kind"), registry=r)
        self.cancelled = Counter(
            "oneseek_cancelled", "Answers given up before their end", ("reason",), registry=r
        )
        self.rejected = Counter("oneseek_rejected", "Requests refused", ("reason",), registry=r)
        self.gates = Counter(
            "oneseek_queue_refusals", "Requests refused for want of a place", ("gate",), registry=r
        )
        self.routes = Counter(
            "oneseek_route_decisions", "Adapters chosen", ("language", "reason"), registry=r
        )
        self.confidence = Histogram(
            "oneseek_route_confidence", "Confidence of detected languages", buckets=CONFIDENCE, registry=r
        )
        self.route_seconds = Histogram(
            "oneseek_route_seconds", "Time to choose an adapter", buckets=ROUTE, registry=r
        )

    def _make_engine_metrics(self) -> None:
        r = self.registry
        self.batch_size = Histogram(
            "oneseek_batch_size", "Requests in one step", ("base",), buckets=BATCH, registry=r
        )
        self.step_seconds = Histogram(
            "oneseek_step_seconds", "Time of one step", ("base",), buckets=STEP, registry=r
        )
        self.engine_failures = Counter(
            "oneseek_engine_failures", "Engines that died or hung in a step", ("base", "reason"), registry=r
        )
        self.engine_restarts = Counter(
            "oneseek_engine_restarts",
            "Attempts to start a dead engine again",
            ("base", "outcome"),
            registry=r,
        )
        self.loads = Counter(
            "oneseek_adapter_loads", "Adapters made resident", ("adapter", "outcome"), registry=r
        )
        self.load_seconds = Histogram(
            "oneseek_adapter_load_seconds", "Time to make an adapter resident", ("adapter", "outcome"),
            buckets=LOAD, registry=r,
        )  # fmt: skip
        self.evictions = Counter(
            "oneseek_adapter_evictions", "Adapters that made way for others", ("adapter",), registry=r
        )
        self.adapter_wait = Histogram(
            "oneseek_adapter_wait_seconds", "Time that requests waited for their adapters", ("outcome",),
            buckets=LOAD, registry=r,
        )  # fmt: skip
        self.base_loads = Counter(
            "oneseek_base_loads", "Loads of a base that is loaded on demand", ("base", "outcome"), registry=r
        )
        self.base_load_seconds = Histogram(
            "oneseek_base_load_seconds", "Time to load a base", ("base", "outcome"), buckets=LOAD, registry=r
        )
        self.base_unloads = Counter(
            "oneseek_base_unloads", "Bases unloaded, and why", ("base", "reason"), registry=r
        )
        self.admin_changes = Counter(
            "oneseek_admin_changes", "Changes asked for over HTTP", ("action", "outcome"), registry=r
        )
        self.build_info = Gauge(
            "oneseek_build_info", "What runs", ("version", "engine", "base_digest"), registry=r
        )
        self.device_info = Gauge(
            "oneseek_device_info", "What it runs on", ("device", "provider", "precision"), registry=r
        )
        self.device_fallbacks = Counter(
            "oneseek_device_fallbacks", "Devices given up for the CPU", ("device", "reason"), registry=r
        )

    def runs(self, info: EngineInfo) -> None:
        """Say what an engine is and what it computes on, once it has started."""
        self.build_info.labels(oneseek_version(), info.name, info.base_digest).set(1)
        device = info.device
        if device is None:
            return
        self.device_info.labels(device.name, device.provider, device.precision).set(1)
        if device.fallback is not None:
            self.device_fallbacks.labels(device.fallback.device, device.fallback.reason).inc()

    def _make_rollout_metrics(self) -> None:
        r = self.registry
        names = ("adapter", "version")
        self.rollouts = Counter(
            "oneseek_rollouts", "Canaries and shadows that were ended", (*names, "outcome"), registry=r
        )
        self.shadows = Counter(
            "oneseek_shadow_requests",
            "Requests to be answered by a shadow too",
            (*names, "outcome"),
            registry=r,
        )
        self.shadow_first_token = Histogram(
            "oneseek_shadow_time_to_first_token_seconds", "From the engine's call to a shadow's first token",
            names, buckets=FIRST_TOKEN, registry=r,
        )  # fmt: skip
        self.shadow_between_tokens = Histogram(
            "oneseek_shadow_inter_token_latency_seconds", "Mean time between tokens of a shadow's answer",
            names, buckets=BETWEEN_TOKENS, registry=r,
        )  # fmt: skip

    def of_base(self, base: str) -> Metrics:
        """The metrics of one of several bases; every series of theirs has the label `base`."""
        own = self._bases[base] = Metrics(process=False)
        self.exposed.add(base, own.registry)
        return own

    def of(self, exchange: Exchange) -> Metrics:
        """Those of the base that answers the exchange, or these where that is not decided."""
        return self._bases.get(exchange.base, self)

    def loads_of(self, base: str) -> LoadMetrics:
        """What counts how `base` comes and goes."""
        return LoadMetrics(base, self.base_loads, self.base_load_seconds, self.base_unloads)

    def steps(self, base: str) -> StepMetrics:
        """What counts the steps and failures of the engine that runs `base`."""
        return StepMetrics(
            base, self.step_seconds, self.batch_size, self.engine_failures, self.engine_restarts
        )

    def record_answer(self, exchange: Exchange) -> None:
        """One HTTP request has been answered, or its client has gone; of several voices each counts."""
        for one in exchange.voices or [exchange]:
            self.of(one)._record(one, one.status or exchange.status)

    def _record(self, exchange: Exchange, ended_with: int) -> None:
        self._count(exchange, ended_with)
        self._release(self._serving.pop(id(exchange), None))

    def _count(self, exchange: Exchange, ended_with: int) -> None:
        if exchange.endpoint in UNCOUNTED:
            return
        status = str(ended_with or 500)
        labels = (exchange.endpoint, exchange.adapter, exchange.version, exchange.language, status)
        self.requests.labels(*labels).inc()
        elapsed = (exchange.ended or time.perf_counter()) - exchange.started
        self.duration.labels(exchange.endpoint, exchange.adapter).observe(elapsed)

    def serve(self, base: str, adapters: Callable[[], Iterable[Adapter]]) -> None:
        """A base is served, with the adapters that `adapters` gives at any time."""
        self._adapters[base] = adapters
        self.board.of(base)

    def served_names(self) -> set[tuple[str, str]]:
        """Alias and version of every adapter of every base."""
        return {(one.alias, one.version) for adapters in self._adapters.values() for one in adapters()}

    def chosen(self, exchange: Exchange) -> None:
        """An adapter serves the exchange from now on, until it is answered. On the event loop."""
        self._release(self._serving.pop(id(exchange), None))
        if exchange.version:
            name = self._serving[id(exchange)] = exchange.adapter, exchange.version
            self._in_use[name] += 1

    @contextmanager
    def using(self, adapter: Adapter) -> Generator[None]:
        """Work beside the requests that will be counted under the adapter. On the event loop."""
        name = adapter.alias, adapter.version
        self._in_use[name] += 1
        try:
            yield
        finally:
            self._release(name)

    def in_use(self, alias: str, version: str) -> bool:
        """Whether anything is under way that will be counted under this version."""
        return self._in_use[alias, version] > 0

    def _release(self, name: tuple[str, str] | None) -> None:
        if name is not None:
            self._in_use[name] -= 1
            if not self._in_use[name]:
                del self._in_use[name]

    def forget_version(self, alias: str, version: str) -> None:
        """Remove every series of a version."""
        for metric in self._of_versions:
            metric.remove_by_labels({"adapter": alias, "version": version})

    def forget_alias(self, alias: str) -> None:
        """Remove every series of an alias that has no version any more."""
        if alias not in NO_ALIASES:
            for metric in self._of_aliases:
                metric.remove_by_labels({"adapter": alias})

    def record_load(self, adapter: str, outcome: str, seconds: float) -> None:
        """An adapter was made resident (`ok`) or not, and why."""
        self.loads.labels(adapter, outcome).inc()
        self.load_seconds.labels(adapter, outcome).observe(seconds)

    def record_shadow(self, adapter: Adapter, pace: Pace) -> None:
        """A shadow has answered."""
        labels = (adapter.alias, adapter.version)
        if pace.first is not None:
            self.shadow_first_token.labels(*labels).observe(pace.first)
        if pace.between is not None:
            self.shadow_between_tokens.labels(*labels).observe(pace.between)

    def meter(self, adapter: str, version: str, started: float, base: str = "") -> Meter:
        """A meter for one generation, its labels looked up once."""
        return Meter(self, adapter, version, started, self.board.of(base))


class Meter:
    """Follows one generation. `started` is when its HTTP request arrived, by `time.perf_counter()`."""

    __slots__ = (
        "_between",
        "_between_vllm",
        "_board",
        "_cached",
        "_completion",
        "_first",
        "_last",
        "_metrics",
        "_name",
        "_prefill",
        "_prompt",
        "_queue",
        "_started",
        "_tokens",
        "finished",
    )

    def __init__(
        self, metrics: Metrics, adapter: str, version: str, started: float, board: BoardSeries
    ) -> None:
        self._metrics = metrics
        self._board, self._between_vllm = board, board.between
        self._started = started
        self._last = 0.0
        self._tokens = 0
        self.finished = False
        """True once the last delta was counted, and with it all that there is to count."""
        self._first = metrics.first_token.labels(adapter, version)
        self._between = metrics.between_tokens.labels(adapter, version)
        self._queue = metrics.queue.labels(adapter)
        self._prefill = metrics.prefill.labels(adapter)
        self._prompt = metrics.tokens.labels(adapter, version, "prompt")
        self._cached = metrics.tokens.labels(adapter, version, "cached")
        self._completion = metrics.tokens.labels(adapter, version, "completion")

    def delta(self, delta: Delta) -> None:
        """Count one delta; called for each one, so it looks up nothing."""
        if delta.token_ids:
            now = time.perf_counter()
            if self._last:
                gap = now - self._last
                self._between.observe(gap)
                for series in self._between_vllm:
                    series.observe(gap)
            else:
                self._first.observe(now - self._started)
                self._board.first(now - self._started)
            self._last = now
            self._tokens += len(delta.token_ids)
        if delta.finish_reason is not None:
            self._finish(delta, delta.finish_reason)

    def _finish(self, delta: Delta, reason: FinishReason) -> None:
        self.finished = True
        prompt = 0
        if delta.usage is not None:
            prompt = delta.usage.prompt_tokens
            self._tokens = delta.usage.completion_tokens
            self._prompt.inc(delta.usage.prompt_tokens)
            self._cached.inc(delta.usage.cached_tokens)
        if delta.timing is not None:
            self._queue.observe(max(0.0, delta.timing.scheduled - delta.timing.arrived))
            self._prefill.observe(max(0.0, delta.timing.first_token - delta.timing.scheduled))
        self._completion.inc(self._tokens)
        self._board.finished(prompt, self._tokens, reason, delta.timing)

    def close(self, prompt_tokens: int, reason: str) -> None:
        """Count a generation that ended before its last delta, and why; a finished one is counted already."""
        if self.finished:
            return
        self._metrics.cancelled.labels(reason).inc()
        self._completion.inc(self._tokens)
        if self._tokens:
            self._prompt.inc(prompt_tokens)
        self._board.given_up(prompt_tokens if self._tokens else 0, self._tokens, failed=reason == "error")

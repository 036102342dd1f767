"""Holds every metric of the server in one registry.

Labels come from the registry of adapters and from the routes, never from a client. Gauges are read from the
engine when scraped, by `server.metrics.collectors`. Names and buckets are in docs/metrics.md.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Generator
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
from server.metrics.adapter_series import make_adapter_series
from server.metrics.board import Board, BoardSeries
from server.metrics.buckets import BATCH, CONFIDENCE, LOAD, ROUTE, STEP
from server.metrics.collectors import BaseCollectors, EngineCollectors
from server.metrics.engine_state import EngineInfo
from server.metrics.families import MetricFamily
from server.metrics.measured import MeasuredBase, MeasuredBases
from server.metrics.observers import LoadMetrics, StepMetrics
from server.metrics.pace import Pace, TokenFlow
from server.metrics.shown import NO_ALIASES, ShownAdapters
from server.request import Delta, FinishReason

UNCOUNTED = frozenset(
    {"/live", "/ready", "/health", "/ping", "/metrics", "/metrics/recent", "/", "/page/{file}"}
)
"""Paths that are not counted as requests: probes, scrapes and the files of the web page."""


class Metrics:
    """All counters and histograms of a server. Thread-safe, as prometheus-client is.

    If `process` is true, the metrics of the operating system's process are included.
    """

    def __init__(self, *, process: bool = True) -> None:
        # A second series for each one, of the time when it began, that no dashboard reads.
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self.plain = CollectorRegistry()
        """The metrics that prometheus-client renders; the others are in `families`."""
        self.registry.register(self.plain)
        self.exposed = BaseCollectors(self)
        """Everything that `/metrics` exports, including the metrics of each base."""
        self._bases: dict[str, Metrics] = {}
        self.engines = EngineCollectors()
        self.plain.register(self.engines)
        if process:
            ProcessCollector(registry=self.plain)
        self.board = Board(self.plain, self.registry)
        self._served = MeasuredBases()
        self._serving: dict[int, tuple[str, str]] = {}
        """Maps each request (by the id of its `Exchange`) to the alias and version that answers it."""
        self._in_use = Counts[tuple[str, str]]()
        self.shown = ShownAdapters(self._served, self.in_use, self._forget)
        self._make_adapter_metrics()
        self._make_request_metrics()
        self._make_engine_metrics()
        self.flows: dict[str, TokenFlow] = {}
        """Maps each value of the label `adapter` to the tokens generated so far, including running
        answers.
        """

    def _make_adapter_metrics(self) -> None:
        series = self._of_adapters = make_adapter_series(self.registry, self.shown)
        self.requests, self.duration = series.requests, series.duration
        self.queue, self.prefill = series.queue, series.prefill
        self.first_token, self.between_tokens = series.first_token, series.between_tokens
        self.tokens, self.rollouts, self.shadows = series.tokens, series.rollouts, series.shadows
        self.shadow_first_token = series.shadow_first_token
        self.shadow_between_tokens = series.shadow_between_tokens
        self.loads, self.load_seconds, self.evictions = series.loads, series.load_seconds, series.evictions

    def families(self) -> list[MetricFamily]:
        """Return the metrics that render their own lines for a scrape."""
        return [*self._of_adapters.families(), *self.board.families()]

    def _make_request_metrics(self) -> None:
        r = self.plain
        self.cancelled = Counter(
            "oneseek_cancelled", "Requests cancelled before their end, by reason", ("reason",), registry=r
        )
        self.rejected = Counter(
            "oneseek_rejected", "Refused requests, by the code of the error", ("reason",), registry=r
        )
        self.gates = Counter(
            "oneseek_queue_refusals", "Requests refused with 429, by refusing check", ("gate",), registry=r
        )
        self.routes = Counter(
            "oneseek_route_decisions", "Adapters chosen by routing", ("language", "reason"), registry=r
        )
        self.confidence = Histogram(
            "oneseek_route_confidence", "Probability of the detected language", buckets=CONFIDENCE, registry=r
        )
        self.route_seconds = Histogram(
            "oneseek_route_seconds", "Time to choose the adapter of a request", buckets=ROUTE, registry=r
        )

    def _make_engine_metrics(self) -> None:
        r = self.plain
        self.batch_size = Histogram(
            "oneseek_batch_size", "Requests in one engine step", ("base",), buckets=BATCH, registry=r
        )
        self.step_seconds = Histogram(
            "oneseek_step_seconds", "Duration of one engine step", ("base",), buckets=STEP, registry=r
        )
        self.engine_failures = Counter(
            "oneseek_engine_failures", "Engines that died or stalled", ("base", "reason"), registry=r
        )
        self.engine_restarts = Counter(
            "oneseek_engine_restarts",
            "Attempts to restart an engine that died or stalled",
            ("base", "outcome"),
            registry=r,
        )
        self.adapter_wait = Histogram(
            "oneseek_adapter_wait_seconds", "Time that requests waited for adapters to load", ("outcome",),
            buckets=LOAD, registry=r,
        )  # fmt: skip
        self.base_loads = Counter(
            "oneseek_base_loads", "Loads of an on-demand base", ("base", "outcome"), registry=r
        )
        self.base_load_seconds = Histogram(
            "oneseek_base_load_seconds", "Time to load a base", ("base", "outcome"), buckets=LOAD, registry=r
        )
        self.base_unloads = Counter(
            "oneseek_base_unloads", "Unloads of an on-demand base, by reason", ("base", "reason"), registry=r
        )
        self.admin_changes = Counter(
            "oneseek_admin_changes",
            "Adapter changes requested over HTTP, by action and outcome",
            ("action", "outcome"),
            registry=r,
        )
        self.ledger_state = Gauge(
            "oneseek_ledger_state", "1 for the current state of the ledger", ("state",), registry=r
        )
        self.ledger_entries = Gauge("oneseek_ledger_entries", "Complete entries in the ledger", registry=r)
        self.ledger_verified = Gauge(
            "oneseek_ledger_verified_timestamp_seconds",
            "Unix time when the ledger was last verified",
            registry=r,
        )
        self.build_info = Gauge(
            "oneseek_build_info",
            "Always 1; labels name the version, engine and base",
            ("version", "engine", "base_digest"),
            registry=r,
        )
        self.device_info = Gauge(
            "oneseek_device_info",
            "Always 1; labels name the embedded engine's device and number format",
            ("device", "provider", "precision"),
            registry=r,
        )
        self.device_fallbacks = Counter(
            "oneseek_device_fallbacks",
            "Devices that were tried before the CPU was used instead, by reason",
            ("device", "reason"),
            registry=r,
        )

    def runs(self, info: EngineInfo) -> None:
        """Set the info metrics of an engine and its device, once it has started."""
        self.build_info.labels(oneseek_version(), info.name, info.base_digest).set(1)
        device = info.device
        if device is None:
            return
        self.device_info.labels(device.name, device.provider, device.precision).set(1)
        if device.fallback is not None:
            self.device_fallbacks.labels(device.fallback.device, device.fallback.reason).inc()

    def of_base(self, base: str) -> Metrics:
        """Create the metrics of one base, if there are several. Their series have the label `base`."""
        own = self._bases[base] = Metrics(process=False)
        self.exposed.add(base, own)
        return own

    def of(self, exchange: Exchange) -> Metrics:
        """Return the metrics of the base that answers the request; the server's if no base is chosen yet."""
        return self._bases.get(exchange.base, self)

    def loads_of(self, base: str) -> LoadMetrics:
        """Return the observer that counts loads and unloads of `base`."""
        return LoadMetrics(base, self.base_loads, self.base_load_seconds, self.base_unloads)

    def steps(self, base: str) -> StepMetrics:
        """Return the observer that counts steps and failures of the engine of `base`."""
        return StepMetrics(
            base, self.step_seconds, self.batch_size, self.engine_failures, self.engine_restarts
        )

    def record_answer(self, exchange: Exchange) -> None:
        """Record an HTTP request that was answered, or whose client disconnected. If several models answered,
        each one is counted.
        """
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

    def serve(self, base: str, served: MeasuredBase) -> None:
        """Add a served base; `served` describes its adapters."""
        self._served.add(base, served)
        self.board.of(base)

    def served_names(self) -> set[tuple[str, str]]:
        """Return the alias and version of every adapter of every base."""
        return self._served.names()

    def chosen(self, exchange: Exchange) -> None:
        """Note which adapter answers the request, so that its series are kept. For the event loop only."""
        self._release(self._serving.pop(id(exchange), None))
        if exchange.version:
            self.shown.used(exchange.adapter, exchange.version)
            name = self._serving[id(exchange)] = exchange.adapter, exchange.version
            self._in_use[name] += 1

    @contextmanager
    def using(self, adapter: Adapter) -> Generator[None]:
        """Keep the adapter's series while the `with` block runs, since its work is counted in them. For the
        event loop only.
        """
        name = adapter.alias, adapter.version
        self._in_use[name] += 1
        try:
            yield
        finally:
            self._release(name)

    def in_use(self, alias: str, version: str) -> bool:
        """True if work is running that will be counted for this version."""
        return self._in_use[alias, version] > 0

    def _release(self, name: tuple[str, str] | None) -> None:
        if name is not None:
            self._in_use[name] -= 1
            if not self._in_use[name]:
                del self._in_use[name]

    def forget_version(self, alias: str, version: str) -> None:
        """Remove all series of a version that is no longer served."""
        self.shown.departed(alias, version)
        for metric in self._of_adapters.of_versions():
            metric.drop(alias, version)

    def forget_alias(self, alias: str) -> None:
        """Remove all series of an alias that has no versions any more."""
        if alias not in NO_ALIASES:
            for metric in self._of_adapters.of_aliases():
                metric.drop(alias)
            self.flows.pop(alias, None)

    def _forget(self, alias: str, version: str, last: bool) -> None:
        for metric in self._of_adapters.of_versions():
            metric.drop(alias, version)
        if last:
            self.forget_alias(alias)

    def record_load(
        self, adapter: Adapter, outcome: str, seconds: float, base: str = "", transition: str = "load"
    ) -> None:
        """Record a load of an adapter of `base`, with its outcome.

        `transition` is `activate` if its weights were in host memory, else `load`.
        """
        alias, _ = self.shown.version_name(adapter.alias, adapter.version)
        self.loads.labels(alias, outcome).inc()
        self.load_seconds.labels(alias, outcome).observe(seconds)
        if outcome == "ok":
            self.board.loads.labels(base, transition).observe(seconds)

    def record_shadow(self, adapter: Adapter, pace: Pace) -> None:
        """Record the times of an answer by a shadow (a version that gets copies of requests)."""
        labels = (adapter.alias, adapter.version)
        if pace.first is not None:
            self.shadow_first_token.labels(*labels).observe(pace.first)
        if pace.between is not None:
            self.shadow_between_tokens.labels(*labels).observe(pace.between)

    def meter(self, adapter: str, version: str, started: float, base: str = "") -> Meter:
        """Return a meter that counts the tokens and times of one answer."""
        return Meter(self, adapter, version, started, self.board.of(base))


class Meter:
    """Measures the tokens and times of one generation. `started`: when its HTTP request arrived, by
    `time.perf_counter()`.
    """

    __slots__ = (
        "_between",
        "_between_vllm",
        "_board",
        "_cached",
        "_completion",
        "_first",
        "_flow",
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
        """True once the last delta is counted."""
        self._first = metrics.first_token.labels(adapter, version)
        self._between = metrics.between_tokens.labels(adapter, version)
        self._queue = metrics.queue.labels(adapter)
        self._prefill = metrics.prefill.labels(adapter)
        self._prompt = metrics.tokens.labels(adapter, version, "prompt")
        self._cached = metrics.tokens.labels(adapter, version, "cached")
        self._completion = metrics.tokens.labels(adapter, version, "completion")
        self._flow = metrics.flows.setdefault(adapter, TokenFlow())

    @property
    def tokens(self) -> int:
        """Number of tokens generated so far."""
        return self._tokens

    def delta(self, delta: Delta) -> None:
        """Count one delta of the answer. Called for each delta, so it does no lookups."""
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
            self._flow.tokens += len(delta.token_ids)
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
        """Count a generation that ended early, with the reason. Does nothing if it has finished."""
        if self.finished:
            return
        self._metrics.cancelled.labels(reason).inc()
        self._completion.inc(self._tokens)
        if self._tokens:
            self._prompt.inc(prompt_tokens)
        self._board.given_up(prompt_tokens if self._tokens else 0, self._tokens, failed=reason == "error")

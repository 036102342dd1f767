"""Keeps samples of the last 15 minutes for the web page: what was generated, how fast, and how many waited.

The metrics' counters are read every few seconds and their differences are kept, so that a page that was just
opened already shows charts. Quantiles are interpolated linearly within histogram buckets, as in Prometheus.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from prometheus_client.registry import Collector

from adapters.lora.manifest import Adapter
from server.metrics.buckets import BETWEEN_TOKENS, FIRST_TOKEN
from server.metrics.collectors import ReportingEngine
from server.metrics.metrics import Metrics

SECONDS = 5.0
"""Seconds between two samples."""
LOOKS = 5
"""Number of times per sample that the engines' running and waiting requests are read."""
KEPT = 180
"""Number of samples that are kept, enough for 15 minutes."""
MOST_NAMES = 32
"""Maximum number of names in one table of a sample. The smallest values are summed up as `others`."""
OTHERS = "others"
_DIGITS = 5

log = logging.getLogger("oneseek.samples")


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Median and 95th percentile of the times in one sample, in seconds."""

    p50: float
    p95: float


class VersionCount(msgspec.Struct, frozen=True, kw_only=True):
    """The number of requests that one version has answered, and how many of these failed."""

    answered: int
    failed: int
    """Number of requests with a status of 500 or more."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What happened between the previous sample and this one. Adapters are named by alias; if there are
    several bases, by `base:alias`.
    """

    number: int
    """Number of the sample since the start of the server, from 1."""
    time: float
    """Unix time at the sample's end."""
    seconds: float
    """Duration of the sample in seconds."""
    tokens: Mapping[str, int]
    """Number of generated tokens by adapter."""
    requests: Mapping[str, VersionCount]
    """Number of requests by what answered them: `alias@version`, `base`, `blend`, `external` or `other`."""
    first_token: Quantiles | None
    """Times from a request's arrival to its first token; None if no answer had its first token."""
    between_tokens: Quantiles | None
    running: Mapping[str, int]
    """Highest number of requests that ran at once, by adapter, as counted every second."""
    waiting: int
    """Highest number of requests that waited at once."""
    kv_usage: float | None
    """Highest fraction of the KV cache in use, 0 to 1, on the fullest base; None if unknown."""
    routes: Mapping[str, int]
    """Number of requests by detected language."""


@dataclass(frozen=True, slots=True)
class SampledBase:
    """One base, with everything from which its samples are read."""

    name: str
    metrics: Metrics
    engine: ReportingEngine
    adapters: Callable[[], Iterable[Adapter]]


@dataclass(slots=True)
class _Totals:
    """The values of all counters since the server's start."""

    tokens: Counts[str] = field(default_factory=Counts[str])
    answered: Counts[str] = field(default_factory=Counts[str])
    failed: Counts[str] = field(default_factory=Counts[str])
    routes: Counts[str] = field(default_factory=Counts[str])
    first_token: list[int] = field(default_factory=lambda: [0] * (len(FIRST_TOKEN) + 1))
    between_tokens: list[int] = field(default_factory=lambda: [0] * (len(BETWEEN_TOKENS) + 1))


@dataclass(slots=True)
class _Peak:
    """The highest values since the last sample."""

    running: Counts[str] = field(default_factory=Counts[str])
    waiting: int = 0
    usage: float | None = None


class Samples:
    """Takes a sample every few seconds, and keeps the newest ones. This is done in a thread, since it reads
    all metrics.
    """

    def __init__(self, bases: Sequence[SampledBase]) -> None:
        self._bases = bases
        self._ring: deque[Sample] = deque(maxlen=KEPT)
        self._number = 0
        self._before = _Totals()
        self._at = time.monotonic()
        self._peak = _Peak()

    async def run(self) -> None:
        """Take samples periodically until cancelled."""
        while True:
            try:
                for _ in range(LOOKS):
                    await asyncio.sleep(SECONDS / LOOKS)
                    self.look()
                self._ring.append(await asyncio.to_thread(self.take))
            except Exception:
                # Without a sample there is a gap in a chart; without the task there are none ever again.
                log.exception(
                    "recording the metrics of the last 5 seconds failed; the web page's charts show a gap"
                )

    def since(self, number: int) -> tuple[Sample, ...]:
        """Return the samples whose number is above `number`, oldest first."""
        return tuple(sample for sample in tuple(self._ring) if sample.number > number)

    def take(self) -> Sample:
        """Return a sample of what happened since the last call. Call it in one thread at a time."""
        now, totals, before = time.monotonic(), self._totals(), self._before
        seconds, self._at, self._before = now - self._at, now, totals
        self._number += 1
        answered, failed = totals.answered - before.answered, totals.failed - before.failed
        peak, self._peak = self._peak, _Peak()
        return Sample(
            number=self._number,
            time=round(time.time(), 3),
            seconds=round(seconds, 3),
            tokens=_largest(totals.tokens - before.tokens),
            requests={
                name: VersionCount(answered=count, failed=failed[name])
                for name, count in answered.most_common(4 * MOST_NAMES)
            },
            first_token=_quantiles(FIRST_TOKEN, totals.first_token, before.first_token),
            between_tokens=_quantiles(BETWEEN_TOKENS, totals.between_tokens, before.between_tokens),
            running=_largest(peak.running),
            waiting=peak.waiting,
            kv_usage=peak.usage,
            routes=_largest(totals.routes - before.routes),
        )

    def _totals(self) -> _Totals:
        totals = _Totals()
        for base in self._bases:
            metrics, prefix = base.metrics, self._prefix(base)
            for alias, flow in tuple(metrics.flows.items()):
                totals.tokens[prefix + alias] += flow.tokens
            for labels, value in _series(metrics.requests):
                alias, version = labels["adapter"], labels["version"]
                if alias == "none":
                    continue  # what no adapter was chosen for, such as this page
                name = f"{prefix}{alias}@{version}" if version else prefix + alias
                totals.answered[name] += value
                totals.failed[name] += value if labels["status"] >= "500" else 0
            for labels, value in _series(metrics.routes):
                totals.routes[labels["language"]] += value
            board = metrics.board.of(base.name).histograms
            _add(totals.first_token, board["vllm:time_to_first_token_seconds"].counts)
            _add(totals.between_tokens, board["vllm:inter_token_latency_seconds"].counts)
        return totals

    def look(self) -> None:
        """Record the current numbers of running and waiting requests and the KV cache in use, if they exceed
        the highest so far.
        """
        running, waiting, usages = Counts[str](), 0, list[float]()
        for base in self._bases:
            state, prefix = base.engine.state(), self._prefix(base)
            aliases = {adapter.digest: adapter.alias for adapter in base.adapters()} | {"": "base"}
            for digest, count in state.running.items():
                running[prefix + aliases.get(digest, "blend")] += count
            waiting += sum(state.waiting.values())
            if state.kv_capacity:
                usages.append((state.kv_tokens - state.kv_cached) / state.kv_capacity)
        peak = self._peak
        peak.running |= running
        peak.waiting = max(peak.waiting, waiting)
        if usages:
            peak.usage = round(max(peak.usage or 0.0, *usages), _DIGITS)

    def _prefix(self, base: SampledBase) -> str:
        return f"{base.name}:" if len(self._bases) > 1 else ""


def _series(counter: Collector) -> Iterable[tuple[Mapping[str, str], int]]:
    for family in counter.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                yield sample.labels, int(sample.value)


def _add(totals: list[int], counts: Sequence[int]) -> None:
    for place, count in enumerate(counts):
        totals[place] += count


def _largest(counts: Counts[str]) -> dict[str, int]:
    """Return the largest counts, and the sum of all others as `others`."""
    kept = dict(counts.most_common(MOST_NAMES))
    rest = counts.total() - sum(kept.values())
    return {name: count for name, count in kept.items() if count} | ({OTHERS: rest} if rest else {})


def _quantiles(bounds: Sequence[float], now: Sequence[int], before: Sequence[int]) -> Quantiles | None:
    # A base that left takes its observations with it.
    counts = [max(0, one - other) for one, other in zip(now, before, strict=True)]
    if not any(counts):
        return None
    return Quantiles(p50=quantile(bounds, counts, 0.5), p95=quantile(bounds, counts, 0.95))


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    """Return a quantile: the value below which the fraction `share` of the observations are, interpolated
    linearly within its bucket.

    `counts` has one number for each bucket, and one more for observations above the last bound, which count
    as equal to this bound.
    """
    rank, below = share * sum(counts), 0
    for place, bound in enumerate(bounds):
        if counts[place] and below + counts[place] >= rank:
            lower = bounds[place - 1] if place else 0.0
            return round(lower + (bound - lower) * (rank - below) / counts[place], _DIGITS)
        below += counts[place]
    return round(bounds[-1], _DIGITS)

"""Exports the metrics that vLLM's Grafana dashboard queries, under vLLM's names, for both engines.

The label `model_name` is the base's name: each base has one series, whichever adapters are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter

from server.metrics.buckets import BETWEEN_TOKENS, FIRST_TOKEN, LOAD, SECONDS, TOKENS
from server.metrics.families import HistogramFamily, HistogramSeries, MetricFamily
from server.request import FinishReason, Timing

REASONS = ("stop", "length", "abort", "error")
"""Finish reasons in vLLM's terms. `abort`: the client disconnected or the request timed out."""
_LABELS = ("model_name",)
_HISTOGRAMS = {
    "vllm:e2e_request_latency_seconds": ("Time from arrival at the engine to the last token", SECONDS),
    "vllm:request_queue_time_seconds": ("Time from arrival at the engine to the first engine step", SECONDS),
    "vllm:request_prefill_time_seconds": ("Time from the first engine step to the first token", SECONDS),
    "vllm:request_decode_time_seconds": ("Time from the first token to the last", SECONDS),
    "vllm:request_inference_time_seconds": ("Time from the first engine step to the last token", SECONDS),
    "vllm:time_to_first_token_seconds": ("Time from a request's arrival to its first token", FIRST_TOKEN),
    "vllm:inter_token_latency_seconds": ("Time between two consecutive deltas of an answer", BETWEEN_TOKENS),
    "vllm:time_per_output_token_seconds": (
        "vllm:inter_token_latency_seconds under its older name",
        BETWEEN_TOKENS,
    ),
    "vllm:request_time_per_output_token_seconds": ("Mean time between tokens of an answer", BETWEEN_TOKENS),
    "vllm:request_prompt_tokens": ("Number of tokens of a prompt", TOKENS),
    "vllm:request_generation_tokens": ("Number of tokens of an answer", TOKENS),
    "vllm:request_max_num_generation_tokens": ("Number of tokens of a request's longest answer", TOKENS),
}
_COUNTERS = {
    "vllm:prompt_tokens": "Tokens of all prompts",
    "vllm:generation_tokens": "Tokens of all answers",
}
_SUCCESS = "vllm:request_success"
OFFERED = frozenset({*_HISTOGRAMS, *_COUNTERS, _SUCCESS})
"""Names, without `_total`, of the metrics that this server exports in place of vLLM's own."""


class Board:
    """The metrics of vLLM's Grafana dashboard, with one `BoardSeries` for each base."""

    def __init__(self, registry: CollectorRegistry, written: CollectorRegistry) -> None:
        """Create the metrics: histograms, which render their own lines, in `written`, and counters in
        `registry`.
        """
        self._histograms = {
            name: HistogramFamily(name, text, _LABELS, bounds, written)
            for name, (text, bounds) in _HISTOGRAMS.items()
        }
        self._counters = {
            name: Counter(name, text, _LABELS, registry=registry) for name, text in _COUNTERS.items()
        }
        self._success = Counter(
            _SUCCESS, "Answers by how they ended", (*_LABELS, "finished_reason"), registry=registry
        )
        self.loads = HistogramFamily(
            "vllm:lora_adapter_load_seconds",
            "Time of a successful load of an adapter into the engine",
            (*_LABELS, "transition"),
            LOAD,
            written,
        )
        self._series: dict[str, BoardSeries] = {}

    def families(self) -> list[MetricFamily]:
        """Return the histograms, which render their own lines for a scrape."""
        return [*self._histograms.values(), self.loads]

    def of(self, base: str) -> BoardSeries:
        """Return the series of a base. All series are exported from the start, as dashboards expect."""
        found = self._series.get(base)
        if found is None:
            found = self._series[base] = BoardSeries(
                {name: histogram.labels(base) for name, histogram in self._histograms.items()},
                {name: counter.labels(base) for name, counter in self._counters.items()},
                {reason: self._success.labels(base, reason) for reason in REASONS},
            )
        return found


@dataclass(frozen=True, slots=True)
class BoardSeries:
    """One base's series of the dashboard's metrics. Updated on the event loop: `between` at each delta, all
    others once per answer.
    """

    histograms: dict[str, HistogramSeries]
    counters: dict[str, Counter]
    ends: dict[str, Counter]

    def first(self, seconds: float) -> None:
        """Record the seconds from a request's arrival to its first token."""
        self.histograms["vllm:time_to_first_token_seconds"].observe(seconds)

    @property
    def between(self) -> tuple[HistogramSeries, HistogramSeries]:
        """The histograms of the time between two deltas of an answer: vLLM has two names for this metric."""
        histograms = self.histograms
        return (
            histograms["vllm:inter_token_latency_seconds"],
            histograms["vllm:time_per_output_token_seconds"],
        )

    def finished(self, prompt: int, tokens: int, reason: FinishReason, timing: Timing | None) -> None:
        """Record an answer that was completed."""
        observe = self.histograms
        observe["vllm:request_prompt_tokens"].observe(prompt)
        observe["vllm:request_generation_tokens"].observe(tokens)
        observe["vllm:request_max_num_generation_tokens"].observe(tokens)
        if timing is not None:
            decode = max(0.0, timing.finished - timing.first_token)
            for name, seconds in (
                ("vllm:e2e_request_latency_seconds", timing.finished - timing.arrived),
                ("vllm:request_queue_time_seconds", timing.scheduled - timing.arrived),
                ("vllm:request_prefill_time_seconds", timing.first_token - timing.scheduled),
                ("vllm:request_inference_time_seconds", timing.finished - timing.scheduled),
                ("vllm:request_decode_time_seconds", decode),
            ):
                observe[name].observe(max(0.0, seconds))
            if tokens > 1:
                observe["vllm:request_time_per_output_token_seconds"].observe(decode / (tokens - 1))
        self._count(prompt, tokens, reason)

    def given_up(self, prompt: int, tokens: int, *, failed: bool) -> None:
        """Record an answer that ended early, because it failed or was cancelled."""
        self._count(prompt, tokens, "error" if failed else "abort")

    def _count(self, prompt: int, tokens: int, reason: str) -> None:
        self.counters["vllm:prompt_tokens"].inc(prompt)
        self.counters["vllm:generation_tokens"].inc(tokens)
        self.ends[reason].inc()

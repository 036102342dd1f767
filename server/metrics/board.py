"""What vLLM's Grafana board queries, under vLLM's names, on either engine.

The label `model_name` is the base: one series for each base, whatever adapters come and go.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter

from server.metrics.buckets import BETWEEN_TOKENS, FIRST_TOKEN, SECONDS, TOKENS
from server.metrics.histogram import Series, TokenHistogram
from server.request import FinishReason, Timing

REASONS = ("stop", "length", "abort", "error")
"""How an answer ends, as vLLM says it: `abort` if the client went away or its time was up."""
_LABELS = ("model_name",)
_HISTOGRAMS = {
    "vllm:e2e_request_latency_seconds": ("From a generation's arrival to its last token", SECONDS),
    "vllm:request_queue_time_seconds": ("From arrival at the engine to the first step", SECONDS),
    "vllm:request_prefill_time_seconds": ("From the first step to the first token", SECONDS),
    "vllm:request_decode_time_seconds": ("From the first token to the last", SECONDS),
    "vllm:request_inference_time_seconds": ("From the first step to the last token", SECONDS),
    "vllm:time_to_first_token_seconds": ("From the request's arrival to the first token", FIRST_TOKEN),
    "vllm:inter_token_latency_seconds": ("Between two deltas of one answer", BETWEEN_TOKENS),
    "vllm:time_per_output_token_seconds": ("The same under its older name", BETWEEN_TOKENS),
    "vllm:request_time_per_output_token_seconds": ("Mean between tokens of an answer", BETWEEN_TOKENS),
    "vllm:request_prompt_tokens": ("Tokens of a prompt", TOKENS),
    "vllm:request_generation_tokens": ("Tokens of an answer", TOKENS),
    "vllm:request_max_num_generation_tokens": ("Tokens of a request's longest answer", TOKENS),
}
_COUNTERS = {
    "vllm:prompt_tokens": "Tokens of prompts",
    "vllm:generation_tokens": "Tokens of answers",
}
_SUCCESS = "vllm:request_success"
OFFERED = frozenset({*_HISTOGRAMS, *_COUNTERS, _SUCCESS})
"""Names without `_total`; vLLM's own of these names are not exported beside them."""


class Board:
    """The metrics, and one `BoardSeries` for each base."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._histograms = {
            name: TokenHistogram(name, text, _LABELS, bounds, registry)
            for name, (text, bounds) in _HISTOGRAMS.items()
        }
        self._counters = {
            name: Counter(name, text, _LABELS, registry=registry) for name, text in _COUNTERS.items()
        }
        self._success = Counter(
            _SUCCESS, "Answers by how they ended", (*_LABELS, "finished_reason"), registry=registry
        )
        self._series: dict[str, BoardSeries] = {}

    def of(self, base: str) -> BoardSeries:
        """The series of a base, all there from its start, as dashboards expect."""
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
    """The series of one base. Observed on the event loop alone, and but for `between` once for an answer."""

    histograms: dict[str, Series]
    counters: dict[str, Counter]
    ends: dict[str, Counter]

    def first(self, seconds: float) -> None:
        """The first token came this long after the request."""
        self.histograms["vllm:time_to_first_token_seconds"].observe(seconds)

    @property
    def between(self) -> tuple[Series, Series]:
        """What is observed between two deltas."""
        histograms = self.histograms
        return (
            histograms["vllm:inter_token_latency_seconds"],
            histograms["vllm:time_per_output_token_seconds"],
        )

    def finished(self, prompt: int, tokens: int, reason: FinishReason, timing: Timing | None) -> None:
        """An answer is whole."""
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
        """An answer ended before its last token."""
        self._count(prompt, tokens, "error" if failed else "abort")

    def _count(self, prompt: int, tokens: int, reason: str) -> None:
        self.counters["vllm:prompt_tokens"].inc(prompt)
        self.counters["vllm:generation_tokens"].inc(tokens)
        self.ends[reason].inc()

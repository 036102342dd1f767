"""Read the counters and gauges of a server under test from its /metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from bench.target.http import Endpoint
from bench.target.probe import ServerKind

RUNNING = {"oneseek": "oneseek_requests_running", "vllm": "vllm:num_requests_running"}
QUEUE = {"oneseek": "oneseek_queue_seconds", "vllm": "vllm:request_queue_time_seconds"}
"""Maps each kind of server to its histogram of queueing times: from a request's arrival at the engine to its
first step.
"""
WAITING = {"oneseek": "oneseek_requests_waiting", "vllm": "vllm:num_requests_waiting"}
GENERATING = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/api/oqt/multi-model-query",
        "/inference/{model}",
    }
)
"""Endpoints of OneSeek whose requests generate tokens. Only they are compared with the load that was sent."""


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """The counters of a server under test since its start."""

    completed: float
    """Number of requests that were answered successfully."""
    given_up: float
    """Number of requests whose client disconnected before the end of the answer."""
    failed: float
    prompt_tokens: float
    completion_tokens: float
    running: float
    by_adapter: Mapping[str, float]
    """Maps each adapter to the number of completion tokens that it generated."""
    queue_seconds: float = 0.0
    """Total seconds that all requests waited in the server's queue."""
    queued: float = 0.0
    """Number of requests whose waiting times are summed in `queue_seconds`. 0 if the server has no histogram
    of queueing times.
    """

    @property
    def queue_mean(self) -> float | None:
        """Mean seconds that a request waited in the queue. None if no waits were recorded."""
        return self.queue_seconds / self.queued if self.queued > 0 else None

    def since(self, before: ServerCounts) -> ServerCounts:
        """Return by how much each counter has grown since `before`. `running` is a gauge, so its current
        value is returned.
        """
        names = self.by_adapter.keys() | before.by_adapter.keys()
        return ServerCounts(
            self.completed - before.completed,
            self.given_up - before.given_up,
            self.failed - before.failed,
            self.prompt_tokens - before.prompt_tokens,
            self.completion_tokens - before.completion_tokens,
            self.running,
            {name: self.by_adapter.get(name, 0) - before.by_adapter.get(name, 0) for name in sorted(names)},
            self.queue_seconds - before.queue_seconds,
            self.queued - before.queued,
        )


ScrapedSamples = list[tuple[str, Mapping[str, str], float]]


def scrape(endpoint: Endpoint) -> ScrapedSamples:
    """Return the name, labels and value of every metric in /metrics. Empty if the server has no /metrics."""
    status, content = endpoint.call("/metrics", headers={"Accept": "text/plain; version=0.0.4"})
    if status != 200:
        return []
    families = text_string_to_metric_families(content.decode())
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def counts(endpoint: Endpoint, kind: ServerKind) -> ServerCounts | None:
    """Return the counters of a OneSeek or vLLM server. None for any other server, or one without /metrics."""
    samples = scrape(endpoint) if kind in RUNNING else []
    if not samples:
        return None
    return _oneseek(samples) if kind == "oneseek" else _vllm(samples)


def gauges(endpoint: Endpoint, kind: ServerKind) -> tuple[float, float] | None:
    """Return the number of running requests and of waiting requests. None if the server has no metrics for
    them.
    """
    samples = scrape(endpoint) if kind in RUNNING else []
    return (_total(samples, RUNNING[kind]), _total(samples, WAITING[kind])) if samples else None


def _total(samples: ScrapedSamples, name: str, **labels: str) -> float:
    return sum(
        value
        for found, own, value in samples
        if found == name and all(own.get(key) == wanted for key, wanted in labels.items())
    )


def _oneseek(samples: ScrapedSamples) -> ServerCounts:
    by_status: dict[str, float] = {}
    by_adapter: dict[str, float] = {}
    for name, labels, value in samples:
        if name == "oneseek_requests_total" and labels["endpoint"] in GENERATING:
            by_status[labels["status"]] = by_status.get(labels["status"], 0) + value
        elif name == "oneseek_tokens_total" and labels["kind"] == "completion":
            by_adapter[labels["adapter"]] = by_adapter.get(labels["adapter"], 0) + value
    good, left = by_status.pop("200", 0), by_status.pop("499", 0)
    return ServerCounts(
        good,
        left,
        sum(by_status.values()),
        _total(samples, "oneseek_tokens_total", kind="prompt"),
        _total(samples, "oneseek_tokens_total", kind="completion"),
        _total(samples, RUNNING["oneseek"]),
        by_adapter,
        *_queue(samples, "oneseek"),
    )


def _vllm(samples: ScrapedSamples) -> ServerCounts:
    name = "vllm:request_success_total"
    good = sum(_total(samples, name, finished_reason=reason) for reason in ("stop", "length"))
    return ServerCounts(
        good,
        _total(samples, name, finished_reason="abort"),
        _total(samples, name, finished_reason="error"),
        _total(samples, "vllm:prompt_tokens_total"),
        _total(samples, "vllm:generation_tokens_total"),
        _total(samples, RUNNING["vllm"]),
        {},
        *_queue(samples, "vllm"),
    )


def _queue(samples: ScrapedSamples, kind: ServerKind) -> tuple[float, float]:
    return _total(samples, f"{QUEUE[kind]}_sum"), _total(samples, f"{QUEUE[kind]}_count")

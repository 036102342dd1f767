"""Attributes and metrics by OpenTelemetry's conventions for generative AI, for operators who opt in."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.metrics import Meter
from opentelemetry.util.types import AttributeValue

from server.exchange import AnswerRecord, Exchange
from server.request import Sampling
from server.telemetry.entry import Work
from server.telemetry.otel import names

MODEL_CHARACTERS = 256
"""Maximum length of a model's name in a trace, since a client can send a name of any length."""


def operation_of(exchange: Exchange) -> str | None:
    """Return the operation's name for the request's endpoint, by OpenTelemetry's conventions; None if the
    endpoint does not call a model.
    """
    return names.OPERATIONS.get(exchange.endpoint)


def generative_attributes(exchange: Exchange, work: Work) -> dict[str, AttributeValue]:
    """Return the `gen_ai.*` attributes of a request that has been answered."""
    operation = operation_of(exchange)
    if operation is None:
        return {}
    found: dict[str, AttributeValue | None] = {
        names.OPERATION: operation,
        names.PROVIDER: names.ONESEEK,
        names.REQUEST_MODEL: exchange.requested[:MODEL_CHARACTERS] or None,
        names.RESPONSE_MODEL: work.adapter if work.adapter != "base" else work.base,
        names.INPUT_TOKENS: work.prompt_tokens,
        names.CACHED_TOKENS: work.cached_tokens,
        names.OUTPUT_TOKENS: work.completion_tokens,
        names.FINISH_REASONS: list(work.finish) or None,
        names.STREAM: exchange.streamed,
        names.CHOICES: exchange.choices if exchange.choices > 1 else None,
    }
    if exchange.sampling is not None:
        found |= _sampling(exchange.sampling)
    return {name: value for name, value in found.items() if value is not None}


def _sampling(sampling: Sampling) -> Mapping[str, AttributeValue | None]:
    return {
        names.MAX_TOKENS: sampling.max_tokens,
        names.TEMPERATURE: sampling.temperature,
        names.TOP_P: sampling.top_p,
        names.TOP_K: sampling.top_k or None,
        names.SEED: sampling.seed,
        names.FREQUENCY_PENALTY: sampling.frequency_penalty or None,
        names.PRESENCE_PENALTY: sampling.presence_penalty or None,
    }


class GenerativeMetrics:
    """OpenTelemetry's metrics `gen_ai.server.*`. Their labels hold aliases of the registry, never text from
    clients.
    """

    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            names.REQUEST_DURATION, "s", "From arrival to the last token",
            explicit_bucket_boundaries_advisory=names.REQUEST_BUCKETS,
        )  # fmt: skip
        self._first = meter.create_histogram(
            names.FIRST_TOKEN, "s", "From arrival to the first token",
            explicit_bucket_boundaries_advisory=names.FIRST_BUCKETS,
        )  # fmt: skip
        self._per_token = meter.create_histogram(
            names.PER_TOKEN, "s", "Mean time of a token after the first one",
            explicit_bucket_boundaries_advisory=names.PER_TOKEN_BUCKETS,
        )  # fmt: skip

    def record(self, exchange: Exchange, seconds: float, error: str | None) -> None:
        """Record the metrics of one answer: a request's, or that of one of the models that answered the
        request.
        """
        operation = operation_of(exchange)
        if operation is None or exchange.adapter == "external":
            return
        labels: dict[str, AttributeValue] = {
            names.OPERATION: operation,
            names.PROVIDER: names.ONESEEK,
            names.REQUEST_MODEL: exchange.adapter,
        }
        if exchange.version:
            labels[names.RESPONSE_MODEL] = f"{exchange.adapter}@{exchange.version}"
        self._duration.record(seconds, labels if error is None else {**labels, names.ERROR_TYPE: error})
        if error is not None:
            return
        for one in exchange.answers:
            if one.first:
                self._first.record(one.first - exchange.started, labels)
            between = _between(one)
            if between is not None:
                self._per_token.record(between, labels)


def _between(record: AnswerRecord) -> float | None:
    """Return the mean seconds per token after the first one; None if the answer has fewer than two tokens or
    was cancelled.
    """
    if record.timing is None or record.tokens < 2:
        return None
    return (record.timing.finished - record.timing.first_token) / (record.tokens - 1)

"""Builds the receipt of an answer: which adapter made it, why, and how long it took.

A receipt holds the same facts as the answer's response headers (`X-OneSeek-…`), and a few fields more. Never
change the names or the order of its fields, because receipts are compared and signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from routing.detect import Detection
from routing.route import Route
from server.exchange import Exchange
from server.request import Timing, Usage
from server.serving.resolution import Resolution

MOST_RUNNERS_UP = 3
LEAST_CONFIDENCE = 0.001
"""Minimum probability of a language that the receipt lists as a runner-up."""
_DIGITS, _RATE_DIGITS = 4, 2
"""Number of decimals of probabilities and seconds (first value), and of tokens per second (second value)."""


class RunnerUp(msgspec.Struct, frozen=True, kw_only=True):
    """A language that the question might have been in."""

    language: str
    confidence: float
    """Posterior probability of the language, 0 to 1."""


class RouteReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The reason why this adapter answered, with the language of the question."""

    language: str | None
    """Language of the question; None if undecided."""
    confidence: float
    """Posterior probability of the likeliest language, even if no language was decided."""
    reason: str
    """The rule by which the adapter was chosen: one of the values of `routing.route.Reason`."""
    runners_up: tuple[RunnerUp, ...]
    """The likeliest languages other than `language`, likeliest first."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt of one answer. Times are None if no token was generated, as for embeddings."""

    request_id: str
    base: str
    """Public name of the base model."""
    base_digest: str
    adapter: str
    """Full name of the adapter, `base`, or the blend, as in the header `X-OneSeek-Adapter`."""
    version: str | None
    """Version of the adapter; None for the base and for blends."""
    digest: str | None
    """The adapters' digests, comma-separated for a blend; None for the base."""
    route: RouteReceipt
    queue_seconds: float | None
    """Seconds from the request's arrival at the engine to the first engine step that worked on it."""
    prefill_seconds: float | None
    """Seconds from the first engine step to the first token."""
    first_token_seconds: float | None
    """Seconds from the request's arrival to the first token: routing, queue and prefill."""
    tokens_per_second: float | None
    """Tokens after the first one, divided by the seconds since the first one; None for an answer of one
    token.
    """


@dataclass(frozen=True, slots=True)
class ReceiptDraft:
    """The part of a receipt that is known before the answer is generated."""

    exchange: Exchange
    resolution: Resolution
    base: str
    base_digest: str

    def complete(self, usages: Sequence[Usage] = (), timings: Sequence[Timing | None] = ()) -> Receipt:
        """Return the receipt of an answer whose choices ended with `usages` and `timings`.

        Several choices have one receipt. Its times are those of the choice that had the first token. Its rate
        counts the tokens of all choices, from the first token to the last.
        """
        resolution = self.resolution
        times = [timing for timing in timings if timing is not None]
        first = min(times, key=lambda timing: timing.first_token, default=None)
        return Receipt(
            request_id=self.exchange.request_id,
            base=self.base,
            base_digest=self.base_digest,
            adapter=resolution.public_name,
            version=resolution.version or None,
            digest=resolution.digest if resolution.adapters else None,
            route=_route(resolution.route),
            queue_seconds=first and _seconds(first.scheduled - first.arrived),
            prefill_seconds=first and _seconds(first.first_token - first.scheduled),
            first_token_seconds=first and _seconds(first.first_token - self.exchange.started),
            tokens_per_second=_rate(usages, times),
        )


def _route(route: Route) -> RouteReceipt:
    return RouteReceipt(
        language=route.language,
        confidence=round(route.confidence, _DIGITS),
        reason=route.reason.value,
        runners_up=_runners_up(route.detection, route.language),
    )


def _runners_up(detection: Detection | None, language: str | None) -> tuple[RunnerUp, ...]:
    if detection is None:
        return ()
    others = [
        RunnerUp(language=code, confidence=round(score, _DIGITS))
        for code, score in detection.scores.items()
        if code != language and score >= LEAST_CONFIDENCE
    ]
    return tuple(others[:MOST_RUNNERS_UP])


def _seconds(value: float) -> float:
    return round(max(0.0, value), _DIGITS)


def _rate(usages: Sequence[Usage], times: Sequence[Timing]) -> float | None:
    if not times:
        return None
    tokens = sum(usage.completion_tokens for usage in usages) - 1
    seconds = max(timing.finished for timing in times) - min(timing.first_token for timing in times)
    return round(tokens / seconds, _RATE_DIGITS) if tokens > 0 and seconds > 0 else None

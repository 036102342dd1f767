"""The log entry of a request: client key, adapter and reason, tokens, times, and outcome.

It holds nothing that a client or a model wrote, except an unknown adapter name.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from server.exchange import ABORTED, AnswerRecord, Exchange
from server.telemetry.records import format_time

KEY_DIGITS = 8
"""Number of hexadecimal digits of a key's SHA-256 that are logged: enough to distinguish an operator's
keys.
"""
ASKED_CHARACTERS = 100
"""Maximum length, as logged, of a requested name that is not served."""
_DIGITS = 4
"""Number of decimals of seconds and probabilities in a log entry."""


class Work(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a log entry about the base, adapter or service that answered. Unknown values are left
    out.
    """

    base: str | None = None
    adapter: str | None = None
    """What answered: an adapter's full name, `base`, the blend, or the name of an external service."""
    digest: str | None = None
    """The digests of the adapters that answered, separated by commas for a blend."""
    language: str | None = None
    route: str | None = None
    """The reason why this adapter answered: one of `routing.route.Reason`."""
    confidence: float | None = None
    """Probability of the detected language, 0 to 1."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    finish: tuple[str, ...] = ()
    """The finish reason of each answer: `stop` or `length`. Cancelled answers are left out."""
    route_seconds: float | None = None
    queue_seconds: float | None = None
    """Seconds from arrival at the engine to the request's first step there."""
    prefill_seconds: float | None = None
    """Seconds from the request's first step in the engine to its first token."""
    first_token_seconds: float | None = None
    """Seconds from the request's arrival to the first token."""
    decode_seconds: float | None = None
    """Seconds from the first token to the last one."""


class RequestEntry(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="request"
):
    """The log entry of one request. Unknown values are left out."""

    time: str
    """Time at which the answer was complete."""
    id: str
    """The request ID, as in `X-Request-ID`."""
    key: str | None = None
    """The first digits of the API key's SHA-256; left out if no key is needed."""
    method: str
    endpoint: str
    """The path of the endpoint's route, or `unknown`."""
    status: int
    """HTTP status, as in the metrics: 499 if the client disconnected; the error's own status if an error
    broke a stream.
    """
    error: str | None = None
    """Error code of the answer, if it is an error."""
    cancelled: str | None = None
    """Why the request was cancelled: `disconnect` or `timeout`."""
    stream: bool = False
    seconds: float
    """Seconds from the request's arrival to the last byte of the answer."""
    parse_seconds: float | None = None
    """Seconds from the request's arrival until routing began."""
    trace: str | None = None
    asked: str | None = None
    """The name that the client asked for, shortened, if it is not served."""
    voices: tuple[Work, ...] = ()
    """One entry for each model, if several models answered the question. Empty if only one model did: its
    values are in this entry.
    """


def describe(exchange: Exchange) -> RequestEntry:
    """Return the log entry of a request that has been answered."""
    now = time.perf_counter()
    parsed = exchange.parsed or min((one.parsed for one in exchange.voices), default=0.0)
    return RequestEntry(
        time=format_time(),
        id=exchange.request_id,
        key=exchange.tenant[:KEY_DIGITS] or None,
        method=exchange.method,
        endpoint=exchange.endpoint,
        status=exchange.status or 500,
        error=exchange.error or None,
        cancelled=None if exchange.cancel_reason == ABORTED else exchange.cancel_reason,
        stream=exchange.streamed,
        seconds=_rounded(now - exchange.started),
        parse_seconds=_rounded(parsed - exchange.started) if parsed else None,
        trace=exchange.trace.trace_id if exchange.trace is not None else None,
        asked=(exchange.requested[:ASKED_CHARACTERS] or None) if exchange.adapter == "unknown" else None,
        voices=tuple(map(_work, exchange.voices)),
    )


def describe_work(exchange: Exchange) -> Work:
    """Return the part of a request's log entry about what answered. It is empty if several models answered,
    since each has its own entry.
    """
    return Work() if exchange.voices else _work(exchange)


def _work(exchange: Exchange) -> Work:
    receipt, answers = exchange.receipt, exchange.answers
    digest, how = receipt.get("X-OneSeek-Adapter-Digest"), receipt.get("X-OneSeek-Route", "")
    language = receipt.get("X-OneSeek-Language")
    reason, _, confidence = how.partition(";confidence=")
    first = _first(answers)
    timing = first.timing if first is not None else None
    return Work(
        base=receipt.get("X-OneSeek-Base"),
        adapter=exchange.version if exchange.adapter == "external" else receipt.get("X-OneSeek-Adapter"),
        digest=None if digest == "none" else digest,
        language=None if language == "none" else language,
        route=reason or None,
        confidence=float(confidence) if confidence else None,
        finish=tuple(one.finish_reason for one in answers if one.finish_reason is not None),
        route_seconds=_between(exchange.parsed, exchange.routed),
        queue_seconds=_between(timing.arrived, timing.scheduled) if timing is not None else None,
        prefill_seconds=_between(timing.scheduled, timing.first_token) if timing is not None else None,
        first_token_seconds=_between(exchange.started, first.first) if first is not None else None,
        decode_seconds=_between(first.first, max(one.ended for one in answers))
        if first is not None
        else None,
        **_tokens(exchange),
    )


def _tokens(exchange: Exchange) -> dict[str, int]:
    usages = [one.usage for one in exchange.answers if one.usage is not None]
    if exchange.embedded:
        return {"prompt_tokens": exchange.embedded}
    if not exchange.answers:
        return {}
    return {
        "prompt_tokens": sum(one.prompt_tokens for one in usages),
        "cached_tokens": sum(one.cached_tokens for one in usages),
        "completion_tokens": sum(one.tokens for one in exchange.answers),
    }


def _first(answers: Sequence[AnswerRecord]) -> AnswerRecord | None:
    """Return the answer that had the first token; None if no answer had one."""
    return min((one for one in answers if one.first), key=lambda one: one.first, default=None)


def _between(begin: float, end: float) -> float | None:
    return _rounded(end - begin) if begin and end else None


def _rounded(seconds: float) -> float:
    return round(max(0.0, seconds), _DIGITS)

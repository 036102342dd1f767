"""Turns a request into spans of a trace: one for the request, one for each phase, one for each external call.

The spans of the phases are made after the request has been answered, with the times that the phases had.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from server.exchange import AnswerRecord, Exchange
from server.telemetry.entry import KEY_DIGITS, Work
from server.telemetry.otel import names

MOST_ANSWERS = 16
"""Maximum number of answers of one request whose phases become spans."""
_PROPAGATOR = TraceContextTextMapPropagator()

Attributes = dict[str, AttributeValue]


class _Headers(Getter[Mapping[bytes, str]]):
    """Reads trace context from a request's headers."""

    def get(self, carrier: Mapping[bytes, str], key: str) -> list[str] | None:
        value = carrier.get(key.lower().encode("latin-1"))
        return None if value is None else [value]

    def keys(self, carrier: Mapping[bytes, str]) -> list[str]:
        return [name.decode("latin-1") for name in carrier]


_HEADERS = _Headers()


class Clock:
    """Converts times of `time.perf_counter()` to Unix time in nanoseconds, which spans need."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.perf_counter_ns()

    def __call__(self, seconds: float) -> int:
        """Return the Unix time in nanoseconds for `seconds` of `time.perf_counter()`."""
        return self._offset + int(seconds * 1e9)


class RequestSpan:
    """The span of one request, with spans for its phases and external calls, as its `RequestTrace`."""

    def __init__(self, tracer: Tracer, exchange: Exchange, attributes: Attributes) -> None:
        self._tracer = tracer
        self.clock = Clock()
        parent = _PROPAGATOR.extract(exchange.headers, context=Context(), getter=_HEADERS)
        self.span: Span = tracer.start_span(
            str(attributes[names.METHOD]),
            context=parent,
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=self.clock(exchange.started),
        )
        self._context = set_span_in_context(self.span, Context())

    @property
    def trace_id(self) -> str:
        """The id of the request's trace, in hexadecimal. See `RequestTrace`."""
        return format_trace_id(self.span.get_span_context().trace_id)

    @contextmanager
    def call(self, service: str) -> Generator[Mapping[str, str]]:
        """Trace a call to an external service, which is made in the `with` block. See `RequestTrace`."""
        attributes: Attributes = {"oneseek.service": service}
        span = self._tracer.start_span(
            f"oneseek.call {service}", self._context, kind=SpanKind.CLIENT, attributes=attributes
        )
        headers: dict[str, str] = {}
        _PROPAGATOR.inject(headers, context=set_span_in_context(span, Context()))
        try:
            yield headers
        except Exception as error:
            _fail(span, type(error).__qualname__)
            raise
        finally:
            span.end()

    def end(self, exchange: Exchange, name: str, attributes: Attributes, ended: float) -> None:
        """End the request's span at the time `ended`, and add the spans of its phases."""
        if self.span.is_recording():
            for one in exchange.voices or (exchange,):
                self._phases(exchange.started, one)
            self.span.update_name(name)
            self.span.set_attributes(attributes)
            error = attributes.get(names.ERROR_TYPE)
            if error is not None:
                self.span.set_status(Status(StatusCode.ERROR, exchange.error or None))
        self.span.end(self.clock(ended))

    def _phases(self, started: float, exchange: Exchange) -> None:
        own: Attributes = {"oneseek.adapter": exchange.adapter} if exchange.adapter != "none" else {}
        self._phase("parse", started, exchange.parsed, own)
        self._phase("route", exchange.parsed, exchange.routed, own)
        if exchange.adapter == "external":  # its times are those of the call's own span
            return
        for index, record in enumerate(exchange.answers[:MOST_ANSWERS]):
            for phase, begin, end in phases_of(record):
                self._phase(phase, begin, end, own | {"oneseek.answer": index}, record)

    def _phase(
        self, name: str, begin: float, end: float, attributes: Attributes, record: AnswerRecord | None = None
    ) -> None:
        if not begin or not end:
            return
        span = self._tracer.start_span(
            f"oneseek.{name}", self._context, attributes=attributes, start_time=self.clock(begin)
        )
        if record is not None and name == "decode":
            span.set_attribute("oneseek.tokens", record.tokens)
        span.end(self.clock(max(begin, end)))


def phases_of(record: AnswerRecord) -> list[tuple[str, float, float]]:
    """Return the phases of an answer as (name, begin, end), in seconds of `time.perf_counter()`. Phases that
    never began, because the answer was cancelled, are left out.
    """
    timing = record.timing
    if timing is not None:
        return [
            ("queue", timing.arrived, timing.scheduled),
            ("prefill", timing.scheduled, timing.first_token),
            ("decode", timing.first_token, timing.finished),
        ]
    if record.first:
        return [("decode", record.first, record.ended)]
    return [("queue", record.called, record.ended)]


def request_attributes(exchange: Exchange, work: Work) -> Attributes:
    """Return OneSeek's own attributes for a request's span."""
    found: Mapping[str, AttributeValue | None] = {
        "oneseek.request_id": exchange.request_id,
        "oneseek.key": exchange.tenant[:KEY_DIGITS] or None,
        "oneseek.base": work.base,
        "oneseek.adapter": work.adapter,
        "oneseek.adapter.digest": work.digest,
        "oneseek.language": work.language,
        "oneseek.route.reason": work.route,
        "oneseek.route.confidence": work.confidence,
        "oneseek.cancelled": exchange.cancel_reason if exchange.given_up else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _fail(span: Span, error: str) -> None:
    span.set_attribute(names.ERROR_TYPE, error)
    span.set_status(Status(StatusCode.ERROR))

"""Exports requests to OpenTelemetry: a trace of each request, and a histogram of their durations."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from opentelemetry.metrics import Meter
from opentelemetry.trace import Tracer
from opentelemetry.util.types import AttributeValue
from starlette.types import Scope

from server.exchange import Exchange
from server.metrics.metrics import UNCOUNTED
from server.telemetry.entry import describe_work
from server.telemetry.otel import names
from server.telemetry.otel.generative import GenerativeMetrics, generative_attributes, operation_of
from server.telemetry.otel.spans import RequestSpan, request_attributes

log = logging.getLogger("oneseek.telemetry")

PATH_CHARACTERS = 256
"""Maximum length of a request's path in a span, since clients can send any length."""
MOST_PENDING = 4096
"""Maximum number of answered requests whose traces wait to be finished. Further traces have no phases."""
CLOSE_SECONDS = 3.0
"""Seconds that a shutdown waits until the collector has received the remaining spans."""


class RequestTracing:
    """Makes a trace of each request and measures it, except health checks, scrapes and the web page."""

    def __init__(
        self,
        tracer: Tracer,
        meter: Meter,
        *,
        generative: bool,
        shutdown: Sequence[Callable[[], object]] = (),
    ) -> None:
        """If `generative`, the conventions for generative AI are used too. The functions `shutdown` send what
        is still buffered, and stop.
        """
        self.looks_early = True
        """True: a trace's span begins when its request arrives. See `RequestObserver`."""
        self._tracer = tracer
        self._generative = GenerativeMetrics(meter) if generative else None
        self._shutdown = shutdown
        self._pending: SimpleQueue[tuple[Exchange, RequestSpan, float] | None] = SimpleQueue()
        """Requests that were answered, each with its span and when that was; None at the end."""
        self._thread: threading.Thread | None = None
        self._duration = meter.create_histogram(
            names.HTTP_DURATION, "s", "From arrival to the last byte",
            explicit_bucket_boundaries_advisory=names.HTTP_BUCKETS,
        )  # fmt: skip

    def begin(self, exchange: Exchange, scope: Scope) -> None:
        """Start the request's span. See `RequestObserver`."""
        if scope["path"] in UNCOUNTED:
            return
        method: str = scope["method"] if scope["method"] in names.METHODS else names.OTHER_METHOD
        attributes: dict[str, AttributeValue] = {
            names.METHOD: method,
            names.SCHEME: scope.get("scheme", "http"),
            names.PATH: scope["path"][:PATH_CHARACTERS],
        }
        server = scope.get("server")
        if server is not None:
            attributes |= {names.SERVER_ADDRESS: server[0]}
            attributes |= {names.SERVER_PORT: server[1]} if server[1] is not None else {}
        exchange.trace = RequestSpan(self._tracer, exchange, attributes)

    def end(self, exchange: Exchange) -> None:
        """Note the time at which the request was answered, and queue its trace to be finished. See
        `RequestObserver`.
        """
        trace = exchange.trace
        if not isinstance(trace, RequestSpan):
            return
        ended = time.perf_counter()
        if self._pending.qsize() >= MOST_PENDING:
            trace.span.end(trace.clock(ended))
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="oneseek-traces", daemon=True)
            self._thread.start()
        self._pending.put((exchange, trace, ended))

    def _run(self) -> None:
        """Finish queued traces in a thread, one after another. Each takes a tenth of a millisecond or
        more.
        """
        while (finished := self._pending.get()) is not None:
            try:
                self._finish(*finished)
            except Exception as error:
                log.error(
                    "sending the trace of request %s failed; its answer is not affected",
                    finished[0].request_id,
                    exc_info=error,
                )

    def _finish(self, exchange: Exchange, trace: RequestSpan, ended: float) -> None:
        status = exchange.status or 500
        failed = exchange.error or (str(status) if status >= 500 else "") or _reason(exchange)
        method = exchange.method if exchange.method in names.METHODS else names.OTHER_METHOD
        own: dict[str, AttributeValue] = {names.STATUS: status}
        if exchange.endpoint != "unknown":
            own[names.ROUTE] = exchange.endpoint
        if status >= 500 or (failed and exchange.given_up):
            own[names.ERROR_TYPE] = failed
        seconds = ended - exchange.started
        http: dict[str, AttributeValue] = {names.METHOD: method, names.SCHEME: "http", **own}
        self._duration.record(seconds, http)
        work = describe_work(exchange)
        attributes = own | request_attributes(exchange, work)
        name = method if names.ROUTE not in own else f"{method} {exchange.endpoint}"
        if self._generative is not None:
            for one in exchange.voices or (exchange,):
                self._generative.record(one, seconds, failed or None)
            attributes |= generative_attributes(exchange, work)
            operation = operation_of(exchange)
            if operation is not None:
                name = (
                    operation
                    if exchange.adapter in ("none", "unknown")
                    else f"{operation} {exchange.adapter}"
                )
        trace.end(exchange, name, attributes, ended)

    async def close(self) -> None:
        """Send the spans that are not sent yet, then stop. See `RequestObserver`."""
        end = time.monotonic() + CLOSE_SECONDS
        self._pending.put(None)
        await _joined([self._thread] if self._thread is not None else [], end)
        # Threads of a pool would be waited for at the exit, however long a collector keeps them.
        threads = [threading.Thread(target=call, daemon=True) for call in self._shutdown]
        for thread in threads:
            thread.start()
        await _joined(threads, end)


async def _joined(threads: Sequence[threading.Thread], end: float) -> None:
    """Wait until all `threads` have ended, but at most until the time `end`, in seconds of
    `time.monotonic()`.
    """
    while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
        await asyncio.sleep(0.02)


def _reason(exchange: Exchange) -> str:
    return exchange.cancel_reason if exchange.given_up else ""

"""The state of one HTTP request while it is served, shared by the middleware and the endpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Send

from server.request import FinishReason, Sampling, Timing, Usage


class Held(Protocol):
    """A reservation: a place in an engine's queue that a request holds before its work begins."""

    @property
    def name(self) -> str:
        """Name under which the engine knows the reservation."""
        ...

    @property
    def open(self) -> bool:
        """True while the place in the queue is still reserved. Implementations use a plain attribute, since
        every request reads it.
        """
        ...

    def begin(self) -> None:
        """Count the request as running instead of waiting. Raises `EngineBusyError` if another request has
        taken its place.
        """
        ...

    def close(self) -> None:
        """Give back the request's place in the queue. Idempotent."""
        ...


class AdapterLease(Protocol):
    """Keeps a request's adapters loaded in the engine until the engine has started to work on the request."""

    @property
    def open(self) -> bool:
        """True while the adapters are kept loaded in the engine for this request."""
        ...

    def expect(self, uses: int) -> None:
        """Set how many generations will start with this lease."""
        ...

    def begun(self) -> None:
        """Note that the engine has started one generation, and from now on keeps the adapters
        loaded itself.
        """
        ...

    def close(self) -> None:
        """Stop keeping the adapters loaded for this request. Idempotent."""
        ...


class RequestTrace(Protocol):
    """The distributed trace of a request, if the server exports traces."""

    @property
    def trace_id(self) -> str:
        """Trace ID: 32 hexadecimal digits."""
        ...

    def call(self, service: str) -> AbstractContextManager[Mapping[str, str]]:
        """Trace a call to another service. Yields the HTTP headers that pass the trace on."""
        ...


@dataclass(slots=True)
class AnswerRecord:
    """Record of one text that an engine or external service generates. Times are in seconds of
    `time.perf_counter()`.
    """

    called: float = field(default_factory=time.perf_counter)
    """Time at which the engine or service was asked to generate."""
    first: float = 0.0
    """Time at which the first delta (piece of text) arrived; 0 if no delta has arrived."""
    ended: float = 0.0
    """Time at which the answer ended for any reason; 0 while the answer is generated."""
    finish_reason: FinishReason | None = None
    """Why the answer ended; None if it was cancelled or failed."""
    usage: Usage | None = None
    timing: Timing | None = None
    """Times that the engine measured; None if the answer was cancelled or failed."""
    tokens: int = 0
    """Number of tokens generated, also if the answer was cancelled."""


@dataclass(slots=True)
class KeptContent:
    """Contents of a request and its answers, kept only if `log_content` is on."""

    body: bytes = b""
    """Body of the request, as received."""
    answers: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    """The pieces of each answer's text, by the answer's index."""


ABORTED = "aborted"
"""Value of `cancel_reason` if neither the client nor the timeout ended the unfinished work."""
EXCHANGE = "oneseek.exchange"
"""Key of the `Exchange` in an ASGI scope; set by the first middleware."""


@dataclass(slots=True)
class Exchange:
    """The state and the outcome of one HTTP request."""

    request_id: str
    """Request ID: the client's `X-Request-ID` if it is short plain ASCII, else a generated one."""
    headers: Mapping[bytes, str] = field(default_factory=dict[bytes, str])
    """Request headers by lower-case name. If a header is repeated, its first value."""
    body_bytes: int = 0
    """Size of the request's body in bytes, once it is read."""
    method: str = ""
    endpoint: str = "unknown"
    """Path template of the HTTP route, such as `/v1/models/{id}`; never the path that the client sent."""
    address: str = ""
    """The client's IP address; empty on a Unix socket."""
    tenant: str = ""
    """Digest of the request's API key; empty if no key is needed."""
    authenticated: bool = False
    """True if the request has a valid key, or no key is needed."""
    trusted: bool = True
    """True if the Host header is allowed and the request does not come from another site's page."""
    from_page: bool = False
    """True if a web page sent the request: it has an Origin or a Sec-Fetch-Site header."""
    receipt: dict[str, str] = field(default_factory=dict[str, str])
    """Response headers that say how the answer was made (the receipt)."""
    adapter: str = "none"
    """Metric label: alias of the adapter, `base`, `blend`, `unknown`, or `none` before routing."""
    version: str = ""
    """Metric label: version of the adapter; empty before routing."""
    base: str = "none"
    """Metric label: the base that answers, or `none` before routing."""
    language: str = "none"
    """Metric label: detected language, or `none` before routing."""
    status: int = 0
    """HTTP status of the answer. An error during streaming replaces the 200 that was sent first."""
    cancel_reason: str = ABORTED
    """Why unfinished work was cancelled: `disconnect`, `timeout`, or `aborted` by the server."""
    generating: bool = False
    """True if work was sent to the engine. The code that reads the engine's answer then records how the
    request ended.
    """
    held: Held | None = None
    """Places that the request has reserved in an engine's queue; given back when the request ends for any
    reason.
    """
    lease: AdapterLease | None = None
    """Lease that keeps the request's adapters loaded; closed when the request ends for any reason."""
    answer_id: str = ""
    """Random suffix of the answer's id, after a prefix such as `chatcmpl-`."""
    voices: list[Exchange] = field(default_factory=list["Exchange"])
    """The exchange of each model, if several models answer one request (voices). Metrics and logs count these
    exchanges instead of this one.
    """
    ended: float = 0.0
    """Time at which this model's answer ended, in seconds of `time.perf_counter()`, if it is one of several
    models that answer; 0 until then.
    """
    send: Send | None = None
    """Sends parts of the response body directly, past middleware that only reads the response's start."""
    started: float = field(default_factory=time.perf_counter)
    """Time at which the request arrived, in seconds of `time.perf_counter()`."""
    parsed: float = 0.0
    """Time at which routing began, after the body was read, in seconds of `time.perf_counter()`; 0 if routing
    has not begun.
    """
    routed: float = 0.0
    """Time at which routing had decided, in seconds of `time.perf_counter()`; 0 if it has not decided."""
    requested: str = ""
    """The `model` of the request, as the client wrote it."""
    sampling: Sampling | None = None
    """Sampling parameters of the request's first answer."""
    choices: int = 0
    """Number of answers to each prompt (`n`)."""
    streamed: bool = False
    """True if the client asked for a streamed answer."""
    error: str = ""
    """Error code of the answer; empty without an error."""
    answers: list[AnswerRecord] = field(default_factory=list[AnswerRecord])
    """Record of every text that an engine or service was asked to generate, in order."""
    embedded: int = 0
    """Number of tokens in the texts that were embedded."""
    trace: RequestTrace | None = None
    """The request's trace; None unless the server exports traces."""
    content: KeptContent | None = None
    """Contents of the request and its answers, to be logged; None unless `log_content` is on."""

    @property
    def asker(self) -> str:
        """Identifies the client, so that work is divided fairly between clients: the API key's digest, or the
        client's address if there is no key.
        """
        return self.tenant or self.address

    def voice(self) -> Exchange:
        """Return a new exchange for the answer of one of several models that answer this request."""
        return Exchange(
            self.request_id,
            self.headers,
            endpoint=self.endpoint,
            address=self.address,
            tenant=self.tenant,
            started=self.started,
            trace=self.trace,
            content=None if self.content is None else KeptContent(),
        )

    def give_up(self, reason: str) -> None:
        """Record in `cancel_reason` why unfinished work is cancelled. If several models answer the request,
        record it for each of them too.
        """
        for one in (self, *self.voices):
            one.cancel_reason = reason

    @property
    def given_up(self) -> bool:
        """True if the client has disconnected or the request has timed out."""
        return self.cancel_reason != ABORTED

"""What is known of one HTTP request while it is served; the middleware and the endpoints share it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Send


class Held(Protocol):
    """What a request holds of an engine before its work begins there."""

    @property
    def name(self) -> str:
        """What the engine knows it by."""
        ...

    @property
    def open(self) -> bool:
        """Whether there is anything to give back. No call: it is looked at for every request."""
        ...

    def begin(self) -> None:
        """Count it as running. Raises `EngineBusyError` if it went to another request."""
        ...

    def close(self) -> None:
        """Give it back. Idempotent."""
        ...


class AdapterLease(Protocol):
    """Keeps the adapters of a request in the engine until its work has begun there."""

    @property
    def open(self) -> bool:
        """Whether there is anything to give back."""
        ...

    def expect(self, uses: int) -> None:
        """So many generations will begin under it."""
        ...

    def begun(self) -> None:
        """One of them is in the engine, which counts its use from then on."""
        ...

    def close(self) -> None:
        """Give all back. Idempotent."""
        ...


EXCHANGE = "oneseek.exchange"
"""Where an ASGI scope holds its request's `Exchange`, from the first middleware on."""


@dataclass(slots=True)
class Exchange:
    """One request and what became of it."""

    request_id: str
    """The client's `X-Request-ID` where it is short plain ASCII, else ours."""
    headers: Mapping[bytes, str] = field(default_factory=dict[bytes, str])
    """The request's, by lower-case name; of several under one name, the first."""
    body_bytes: int = 0
    """Of the request's body, once it is read."""
    endpoint: str = "unknown"
    """The route's path, never the client's."""
    tenant: str = ""
    """Digest of the API key that asked; empty where none is needed."""
    authenticated: bool = False
    """Whether the request presented a valid key, or none is needed."""
    trusted: bool = True
    """Whether it named this server as its host and came from no other site's page."""
    from_page: bool = False
    """Whether a page in a browser asks: it names its origin, or the kind of its site."""
    receipt: dict[str, str] = field(default_factory=dict[str, str])
    """Headers that say how the answer was made."""
    adapter: str = "none"
    """Metric label: the alias that serves, `base`, `blend`, `unknown`, or `none` before the decision."""
    version: str = ""
    """Metric label."""
    base: str = "none"
    """Metric label: the base that answers, or `none` before the decision."""
    language: str = "none"
    """Metric label."""
    status: int = 0
    """What the client was told; an error in mid-stream replaces the 200 that began it."""
    cancel_reason: str = "aborted"
    """Why unfinished work ended: `disconnect`, `timeout`, or `aborted` by the server itself."""
    generating: bool = False
    """Whether the engine was asked for anything; the end of that is counted where it is read."""
    held: Held | None = None
    """Given back when the request ends, in whatever way."""
    lease: AdapterLease | None = None
    """The same."""
    answer_id: str = ""
    """What the answer's own id ends with."""
    voices: list[Exchange] = field(default_factory=list["Exchange"])
    """Of a question that goes to several voices, one for each: they are counted in its place."""
    ended: float = 0.0
    """When a voice ended, in seconds of `time.perf_counter()`; 0 until then."""
    send: Send | None = None
    """Sends what follows an answer's head, past the layers that only look at heads."""
    started: float = field(default_factory=time.perf_counter)
    """Seconds of `time.perf_counter()`."""

    def voice(self) -> Exchange:
        """The exchange of one of several voices that answer this request."""
        return Exchange(
            self.request_id,
            self.headers,
            endpoint=self.endpoint,
            tenant=self.tenant,
            started=self.started,
        )

    def give_up(self, reason: str) -> None:
        """Unfinished work ends because of `reason`; see `cancel_reason`."""
        for one in (self, *self.voices):
            one.cancel_reason = reason

    @property
    def given_up(self) -> bool:
        """Whether its client has left, or its time was up."""
        return self.cancel_reason != "aborted"

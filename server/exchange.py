"""What is known of one HTTP request while it is served; the middleware and the endpoints share it."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field

from starlette.types import Scope, Send

_KEY = "oneseek.exchange"
_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(slots=True)
class Exchange:
    """One request and what became of it."""

    request_id: str
    """The client's `X-Request-ID` where it is short plain ASCII, else ours."""
    endpoint: str = "unknown"
    """The route's path, never the client's."""
    tenant: str = ""
    """Digest of the API key that asked; empty where none is needed."""
    authenticated: bool = False
    """Whether the request presented a valid key, or none is needed."""
    receipt: dict[str, str] = field(default_factory=dict[str, str])
    """Headers that say how the answer was made."""
    adapter: str = "none"
    """Metric label: the alias that serves, `base`, `blend`, `unknown`, or `none` before the decision."""
    version: str = ""
    """Metric label."""
    language: str = "none"
    """Metric label."""
    status: int = 0
    """What the client was told; an error in mid-stream replaces the 200 that began it."""
    cancel_reason: str = "aborted"
    """Why unfinished work ended: `disconnect`, `timeout`, or `aborted` by the server itself."""
    generating: bool = False
    """Whether the engine was asked for anything; the end of that is counted where it is read."""
    answer_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What the answer's own id ends with."""
    send: Send | None = None
    """Sends what follows an answer's head, past the layers that only look at heads."""
    started: float = field(default_factory=time.perf_counter)
    """Seconds of `time.perf_counter()`."""

    @property
    def given_up(self) -> bool:
        """Whether its client has left, or its time was up."""
        return self.cancel_reason != "aborted"


def open_exchange(scope: Scope, send: Send) -> Exchange:
    """The exchange of a request that has just arrived and is answered through `send`."""
    theirs = header(scope, b"x-request-id")
    sane = theirs is not None and _SANE_ID.fullmatch(theirs)
    exchange = Exchange(theirs if theirs is not None and sane else uuid.uuid4().hex, send=send)
    scope[_KEY] = exchange
    return exchange


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that `open_exchange` began."""
    exchange = scope[_KEY]
    assert isinstance(exchange, Exchange)
    return exchange


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of a header by its lower-case name; None where it is absent."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None

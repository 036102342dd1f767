"""The state of a request whose body is still arriving, and whether its connection can be kept afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from server.errors import ErrorReply

ARRIVAL = "oneseek.arrival"
"""Key in an ASGI scope under which a request's `Arrival` is stored."""

SMALL_BODY = 64 * 1024
"""Bytes of each body that do not count towards the memory limit for bodies. If a request is answered before
all of its body was read, and at most this many bytes are left, they are read and dropped, so that the
connection can be kept.
"""


@dataclass(slots=True, eq=False)
class Arrival:
    """The state of one request's body: how much has arrived, and the error that refuses the remaining
    bytes.
    """

    cycle: RequestResponseCycle
    """uvicorn's object for the request and its answer."""
    announced: int | None
    """Content-Length in bytes; None for a chunked body."""
    fail: Callable[[ErrorReply], None]
    """Function that stops reading the body and answers the request with the given error."""
    reusable: bool
    """True if the connection may serve another request later, by this request's headers and the server's
    state.
    """
    refusal: ErrorReply | None = None
    """Error reply that the headers alone already call for; None if there is none."""
    failure: ErrorReply | None = None
    """Error reply with which reading the body was stopped; None if it was not stopped."""
    received: int = 0
    """Bytes of the body received so far."""
    held: int = 0
    """Bytes of this body that count towards the memory limit for all bodies."""
    whole: bool = False
    """True if the whole body has arrived."""
    moved: float = field(default_factory=time.monotonic)
    """Time at which bytes of the body last arrived, in seconds of `time.monotonic()`."""

    def settle(self) -> None:
        """Decide if the connection is kept after the answer: only if little of the body is unread. Call it
        before the answer begins.
        """
        if not self.cycle.response_started:
            self.cycle.keep_alive = self.reusable and self._leaves_little()

    def _leaves_little(self) -> bool:
        if self.whole:
            return True
        # A client that waits for `100 Continue` may send its body after another answer, or may not.
        if self.announced is None or self.cycle.waiting_for_100_continue:
            return False
        return self.announced - self.received <= SMALL_BODY


def arrival_of(cycle: RequestResponseCycle) -> Arrival:
    """Return the `Arrival` of the request that `cycle` serves."""
    return cast("Scope", cycle.scope)[ARRIVAL]

"""Tracks a request while its body arrives, and sends replies that bypass the application."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from server.errors import ErrorReply

ARRIVAL = "oneseek.arrival"
"""Key of the request's `Arrival` in an ASGI scope."""

SMALL_BODY = 64 * 1024
"""Bytes of a body that are always read, even if the memory for bodies is full. If an answer is sent before
the whole body was read, and no more than this is left, the rest is read and dropped, so that the connection
can be kept.
"""


@dataclass(slots=True, eq=False)
class Arrival:
    """The state of one request's body: how much has arrived, and why the rest is refused."""

    cycle: RequestResponseCycle
    """The parts of uvicorn's request-response cycle that are used here."""
    announced: int | None
    """Content-Length in bytes; None for a chunked body."""
    fail: Callable[[ErrorReply], None]
    """Stop reading the body, with this reply."""
    reusable: bool
    """True if the connection may be reused, judging by the request head and the server's state."""
    refusal: ErrorReply | None = None
    """The reply if the headers are enough to decide it; None otherwise."""
    failure: ErrorReply | None = None
    """The reply with which reading the body was stopped."""
    received: int = 0
    """Bytes of the body received so far."""
    held: int = 0
    """Bytes of this body that count towards the limit for all bodies."""
    whole: bool = False
    """True if the body has ended."""
    moved: float = field(default_factory=time.monotonic)
    """When the body's last bytes arrived, in seconds of `time.monotonic()`."""

    def settle(self) -> None:
        """Keep the connection after an answer that begins now only if little of the body is unread."""
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
    """The `Arrival` of the request that `cycle` serves."""
    return cast("Scope", cycle.scope)[ARRIVAL]

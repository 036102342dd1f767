"""A request on its way in: what its connection knows of it, and what it answers in its place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from server.errors import ErrorReply

ARRIVAL = "oneseek.arrival"
"""Where an ASGI scope holds its request's `Arrival`."""

SMALL_BODY = 64 * 1024
"""Bytes that are taken of any body, whatever other bodies hold. A rest of this size is also read and dropped
to keep a connection whose answer came before its body."""


@dataclass(slots=True, eq=False)
class Arrival:
    """One request's body: how much of it has come, and why no more of it is taken."""

    cycle: RequestResponseCycle
    """uvicorn's part in serving the request."""
    announced: int | None
    """Bytes in its Content-Length; None if it comes in chunks."""
    fail: Callable[[ErrorReply], None]
    """Break off the body with this answer."""
    reusable: bool
    """Whether the connection may be used again, as far as its head and the server's state say."""
    refusal: ErrorReply | None = None
    """The answer, if its head alone decides it."""
    failure: ErrorReply | None = None
    """Why the body was broken off."""
    received: int = 0
    """Bytes of the body so far."""
    held: int = 0
    """Bytes of them that count towards the limit for all bodies."""
    whole: bool = False
    """Whether the body has ended."""
    moved: float = field(default_factory=time.monotonic)
    """When its last bytes came, in seconds of `time.monotonic()`."""

    def settle(self) -> None:
        """Decide whether an answer that begins now keeps the connection: only if it leaves little unread."""
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
    """The arrival of the request that `cycle` serves."""
    return cast("Scope", cycle.scope)[ARRIVAL]

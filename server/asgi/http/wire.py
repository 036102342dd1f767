"""State that all connections of a server share: their number, the memory for request bodies, and whether the
server is shutting down.
"""

from __future__ import annotations

import time
from enum import Enum, auto
from typing import Protocol

from server.asgi.http import replies
from server.asgi.http.arrival import SMALL_BODY, Arrival
from server.asgi.http.limits import MAX_URL_BYTES
from server.errors import ErrorReply

IDLE_SECONDS = 1.0
"""Seconds that a connection must have been idle before it can be closed for a new one at
`max_connections`.
"""

STALLED_SECONDS = 2.0
"""Seconds without data after which a request's body is given up, if the memory for bodies is full and another
body needs it.
"""

RESERVE = 64
"""Number of extra connections beyond `max_connections`, on which probes are answered and other requests get
an error reply. If these are used up too, the oldest one that has sent no request yet is refused, else the new
one.
"""


PROBES = frozenset({"/live", "/ready", "/health", "/ping", "/metrics"})
"""Paths that are answered even beyond `max_connections`, so that an orchestrator does not kill a busy
server.
"""

OPEN_WHILE_DRAINING = frozenset({"/live", "/metrics", "/version"})


class Connection(Protocol):
    """The interface that `Connections` needs of a connection."""

    def give_way(self) -> None:
        """Close this idle connection to make room for a new one."""
        ...


class Place(Enum):
    """How a new connection is treated: within the limit, beyond it (only probes are answered), or refused."""

    WITHIN = auto()
    BEYOND = auto()
    NOWHERE = auto()


class Connections:
    """Counts connections. At the limit, it makes room for a new one by closing the one that has idled
    longest.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: set[Connection] = set()
        self._beyond: dict[Connection, bool] = {}
        """Maps each extra connection to True while it waits for the head of its first request; the oldest
        connection first.
        """
        self._idle: dict[Connection, float] = {}
        """Maps each idle connection to the time since which it is idle; the longest idle first."""

    def admit(self, connection: Connection) -> Place:
        """Count a new connection. Returns how to treat it: as within the limit, as beyond it (only probes are
        answered), or as refused.
        """
        if len(self._open) < self.limit or self._make_room():
            self._open.add(connection)
            self.rest(connection)
            return Place.WITHIN
        if len(self._beyond) >= RESERVE:
            waiting = next((other for other, waits in self._beyond.items() if waits), None)
            if waiting is None:
                return Place.NOWHERE
            self.forget(waiting)
            waiting.give_way()
        self._beyond[connection] = True
        return Place.BEYOND

    def rest(self, connection: Connection) -> None:
        """Note that a connection now waits for a request."""
        if connection in self._open:
            self._idle[connection] = time.monotonic()

    def work(self, connection: Connection) -> None:
        """Note that a connection now has a request, so it must not be closed."""
        self._idle.pop(connection, None)
        if connection in self._beyond:
            self._beyond[connection] = False

    def forget(self, connection: Connection) -> None:
        """Note that a connection is closed. Idempotent."""
        self._idle.pop(connection, None)
        self._open.discard(connection)
        self._beyond.pop(connection, None)

    def _make_room(self) -> bool:
        for connection, since in self._idle.items():
            if time.monotonic() - since < IDLE_SECONDS:
                return False
            self.forget(connection)
            connection.give_way()
            return True
        return False


class Bodies:
    """Counts the bytes of all request bodies that wait for an answer, up to `limit` bytes.

    The first `SMALL_BODY` bytes of each body are not counted, so that small requests are accepted even at the
    limit. At the limit, a body whose client has stopped sending is given up for one that makes progress.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        """Bytes of request bodies that count towards `limit` now."""
        self._large: set[Arrival] = set()

    def take(self, arrival: Arrival, size: int) -> bool:
        """Count `size` more bytes of a body. Returns False if the memory for bodies is full."""
        arrival.received += size
        arrival.moved = time.monotonic()
        more = arrival.received - SMALL_BODY - arrival.held
        if more <= 0:
            return True
        if self.held + more > self.limit and not self._make_room(arrival, more):
            return False
        arrival.held += more
        self.held += more
        self._large.add(arrival)
        return True

    def release(self, arrival: Arrival) -> None:
        """Stop counting a body, because its request was answered or refused. Idempotent."""
        self.held -= arrival.held
        arrival.held = 0
        self._large.discard(arrival)

    def _make_room(self, arrival: Arrival, size: int) -> bool:
        for other in [other for other in self._large if other.cycle.response_started]:
            self.release(other)
        stalled = time.monotonic() - STALLED_SECONDS
        for other in sorted(self._large - {arrival}, key=lambda other: other.moved):
            if self.held + size <= self.limit or other.moved > stalled:
                break
            if not other.whole:
                self.release(other)
                other.fail(replies.BODY_TOO_LATE)
        return self.held + size <= self.limit


class Wire:
    """The state that all connections of one server share."""

    def __init__(self, max_connections: int, bodies_memory: int) -> None:
        self.connections = Connections(max_connections)
        self.bodies = Bodies(bodies_memory)
        self.draining = False
        """True if the server is shutting down and accepts no new work."""

    def refusal_of(self, path: str, url_size: int, *, beyond: bool) -> ErrorReply | None:
        """Return the error that refuses a request by its path and URL; None to accept it.

        If `beyond` is true, there are too many connections, and only health checks and scrapes are accepted.
        """
        if url_size > MAX_URL_BYTES:
            return replies.url_too_long(MAX_URL_BYTES)
        if self.draining and path not in OPEN_WHILE_DRAINING:
            return replies.SHUTTING_DOWN
        if beyond and path not in PROBES:
            return replies.TOO_MANY_CONNECTIONS
        return None

"""What all connections share: their number, the memory of their bodies, and whether the server drains."""

from __future__ import annotations

import time
from enum import Enum, auto
from typing import Protocol

from server.asgi.http import replies
from server.asgi.http.arrival import SMALL_BODY, Arrival
from server.asgi.http.limits import MAX_URL_BYTES
from server.errors import ErrorReply

IDLE_SECONDS = 1.0
"""A connection that has asked for nothing for this long gives way to a new one when all are taken."""

STALLED_SECONDS = 2.0
"""A body of which nothing has come for this long gives way to others when all memory for bodies is taken."""

RESERVE = 64
"""Connections beyond the limit that are kept, so that probes are answered and others are told to come back.
Past it the oldest that waits for its head is told at once; if none does, the new one is."""


PROBES = frozenset({"/live", "/ready", "/health", "/ping", "/metrics"})
"""What is answered on connections beyond the limit, so that an orchestrator does not kill a full server."""

OPEN_WHILE_DRAINING = frozenset({"/live", "/metrics", "/version"})


class Connection(Protocol):
    """A connection, as those who count it see it."""

    def give_way(self) -> None:
        """Close for a new connection; nothing has been asked on this one, or all is answered."""
        ...


class Place(Enum):
    """Where a new connection stands."""

    WITHIN = auto()
    BEYOND = auto()
    NOWHERE = auto()


class Connections:
    """Counts connections, and makes room for a new one by closing the one that has idled longest."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: set[Connection] = set()
        self._beyond: dict[Connection, bool] = {}
        """Whether each still waits for its head; the oldest first."""
        self._idle: dict[Connection, float] = {}
        """Since when, the longest first."""

    def admit(self, connection: Connection) -> Place:
        """Count a new connection, and say where it stands."""
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
        """It waits for a request from now on."""
        if connection in self._open:
            self._idle[connection] = time.monotonic()

    def work(self, connection: Connection) -> None:
        """It has a request from now on, for which it stays."""
        self._idle.pop(connection, None)
        if connection in self._beyond:
            self._beyond[connection] = False

    def forget(self, connection: Connection) -> None:
        """It is closed. Idempotent."""
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
    """Counts the bytes of all bodies whose requests have no answer yet, up to `limit`.

    The first `SMALL_BODY` bytes of each are not counted: whoever sends little never waits for those who send
    much. If the limit is reached, a body that has stalled is given up for one that moves.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        """Bytes at present."""
        self._large: set[Arrival] = set()

    def take(self, arrival: Arrival, size: int) -> bool:
        """Count `size` more bytes of a body. False: there is no room for them."""
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
        """Count a body no longer. Idempotent."""
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
    """The state that one server's connections share."""

    def __init__(self, max_connections: int, bodies_memory: int) -> None:
        self.connections = Connections(max_connections)
        self.bodies = Bodies(bodies_memory)
        self.draining = False
        """Whether the server takes no new work, because it is about to end."""

    def refusal_of(self, path: str, url_size: int, *, beyond: bool) -> ErrorReply | None:
        """The answer to a request that its head alone decides; `beyond` the limit, only probes are served."""
        if url_size > MAX_URL_BYTES:
            return replies.url_too_long(MAX_URL_BYTES)
        if self.draining and path not in OPEN_WHILE_DRAINING:
            return replies.SHUTTING_DOWN
        if beyond and path not in PROBES:
            return replies.TOO_MANY_CONNECTIONS
        return None

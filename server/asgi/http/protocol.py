"""The HTTP protocol of one connection: uvicorn's, on httptools, with limits that uvicorn does not have.

A refused request still goes through the application, where `Refusals` raises the error. Input that cannot be
parsed is answered with an error after all earlier requests, and the connection reads no further.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.asgi.http import replies
from server.asgi.http.arrival import ARRIVAL, Arrival, arrival_of
from server.asgi.http.limits import (
    BEYOND_SECONDS,
    HEADER_SECONDS,
    MAX_PIPELINED,
    MAX_URL_BYTES,
    REST_SECONDS,
    UNREAD_BODY,
    UNREAD_HEAD,
    Overhead,
)
from server.asgi.http.reading import (
    Deadline,
    announced_size,
    head_without_upgrade,
    is_plain,
    new_parser,
    request_id_line,
)
from server.asgi.http.transport import LingeringTransport
from server.asgi.http.until_closed import send_until_closed
from server.asgi.http.wire import Place, Wire
from server.errors import ErrorReply


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on the size and time of heads, trailers, bodies and unread answers."""

    header_seconds = HEADER_SECONDS

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        wire: Wire,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._wire = wire
        self._in_head = True
        """True if the parser is in or before a head, not in a body."""
        self._begun = False
        """True if the current head has begun to arrive."""
        self._overhead = Overhead()
        self._deaf = False
        """True if reading has ended because the input is invalid or too large."""
        self._refusal: ErrorReply | None = None
        """The reply for the next head that is read, if already decided."""
        self._brief = False
        """True to close the connection without lingering."""
        self._arrival: Arrival | None = None
        """The state of the body that is being read or was read last."""
        self._serving: RequestResponseCycle | None = None

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called when a client has connected: count the connection, and wait for its first request."""
        self._lingering = LingeringTransport(transport, self.loop, self._unread)
        self._deadline = Deadline(self.loop, self._lingering.finish)
        super().connection_made(self._lingering)
        place = self._wire.connections.admit(self)
        self._beyond = place is not Place.WITHIN
        self._deadline.set(BEYOND_SECONDS if self._beyond else self.header_seconds)
        if place is Place.NOWHERE:
            self.give_way()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection is closed: stop its timers, and report the disconnect to its
        requests.
        """
        self._deadline.stop()
        self._lingering.forget()
        self._wire.connections.forget(self)
        for cycle in (self._serving, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None:
                self._release(cycle)
                # uvicorn tells the last request alone.
                cycle.disconnected = cycle.disconnected or not cycle.response_complete
                cycle.message_event.set()
        super().connection_lost(exc)

    def give_way(self) -> None:
        """Close this idle connection to make room for another one. If it is beyond `max_connections`, its
        client gets an error reply first.
        """
        if self._beyond and self._in_head and not self._deaf:
            self._brief = True
            self._refuse(replies.TOO_MANY_CONNECTIONS)
        else:
            self._lingering.finish()

    def shutdown(self) -> None:
        """Close the connection after the current answer, or at once if there is none."""
        if self._serving is None:
            self._lingering.finish()
        else:
            self.answer_last()

    def answer_last(self) -> None:
        """Make the current answer the last one on this connection."""
        if self._serving is None:
            return
        for cycle in (self._serving, *(cycle for cycle, _ in self.pipeline)):
            arrival_of(cycle).reusable = cycle.keep_alive = False

    def pause_writing(self) -> None:
        """Called when the client reads more slowly than the answer is written: start the timeout for unread
        data.
        """
        super().pause_writing()
        self._lingering.watch_writes()

    # Reading.

    def data_received(self, data: bytes) -> None:
        """Called with received data: parse it, within the limits."""
        if self._lingering.is_lingering:
            self._lingering.drop(data)
            return
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        if self._in_head and self._serving is None and not self._deadline.is_set:
            self._deadline.set(self.header_seconds)
        was_in_head, arrival = self._in_head and self._begun, self._arrival
        content = arrival.received if arrival is not None else 0
        try:
            self._feed(data)
        except httptools.HttpParserError:
            if not self._deaf:
                self._refuse(self._refusal or replies.MALFORMED)
            return
        problem = None
        if self._in_head and self._begun:
            problem = self._overhead.check_head(len(data) if was_in_head else 0, self.url)
        elif not self._in_head and arrival is not None and arrival is self._arrival:
            around = len(data) - (arrival.received - content)
            problem = self._overhead.check_framing(around, arrival.received)
        if problem is not None:
            self._refuse(problem)

    def _feed(self, data: bytes) -> None:
        """Parse `data`. If a request asks to upgrade the protocol, its head is parsed again without the
        Upgrade header.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                method = self.parser.get_method()
                if method == b"CONNECT":
                    self._refuse(replies.NO_TUNNELS)
                    return
                version = self.parser.get_http_version()
                head = head_without_upgrade(method, self.url, version, self.headers)
                self.parser = new_parser(self)
                data = head + data[offer.args[0] :]

    def on_message_begin(self) -> None:
        """Called when a request head begins."""
        if self._deaf and self._refusal is None:
            raise ValueError("reading has ended")
        super().on_message_begin()
        self._begun = True
        self._overhead.reset()

    def on_url(self, url: bytes) -> None:
        """Append a part of the URL, until the URL exceeds `MAX_URL_BYTES`."""
        if len(self.url) <= MAX_URL_BYTES:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Trailers, which follow a body, are dropped."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called when a request head is complete: start the request, or refuse it."""
        if self.parser.should_upgrade():
            return  # it is read again without the offer
        if len(self.pipeline) >= MAX_PIPELINED and self._refusal is None:
            self._refusal = replies.TOO_MANY_AT_ONCE
            raise ValueError("too many requests")
        if not is_plain(self.headers) and self._refusal is None:
            self._refusal = replies.UNKNOWN_CODING
            raise ValueError("unknown transfer coding")
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            send_until_closed(self.cycle)
            # RFC 9110 (10.1.1): such a client does not understand `100 Continue`.
            self.cycle.waiting_for_100_continue = False
        self._deadline.stop()
        self._unset_keepalive_if_required()
        self._wire.connections.work(self)
        self._in_head = self._begun = False
        self._arrival = Arrival(
            self.cycle,
            announced=announced_size(self.headers),
            fail=self._fail,
            reusable=self.cycle.keep_alive and not self._beyond,
            refusal=self._refusal
            or self._wire.refusal_of(self.scope["path"], len(self.url), beyond=self._beyond),
        )
        self._arrival.settle()
        # The request's task begins with the event loop's next turn, so it finds this.
        cast("Scope", self.scope)[ARRIVAL] = self._arrival
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self._lingering.hold_reading(True)
        else:
            self._serving = self.cycle
            self._lingering.expect_head()

    def on_body(self, body: bytes) -> None:
        """Called with a part of the body: keep it, or refuse the body if the memory for bodies is full."""
        arrival = self._arrival
        if arrival is None:  # a body of what is read again without an offer
            return
        if arrival.failure is not None or self.cycle.response_complete:
            arrival.received += len(body)
        elif self._wire.bodies.take(arrival, len(body)):
            arrival.settle()
            super().on_body(body)
        else:
            self._fail(replies.NO_ROOM_FOR_BODY)

    def on_message_complete(self) -> None:
        """Called when the body is complete; the next data begins a new head."""
        if self.parser.should_upgrade():
            return
        assert self._arrival is not None
        self._in_head = self._arrival.whole = True
        self._arrival.settle()
        super().on_message_complete()
        if self._serving is None and not self._deaf:  # it was answered before its body came
            self._deadline.stop()
            self._rest()

    # Ending.

    def on_response_complete(self) -> None:
        """Called when an answer is complete: start the next pipelined request, or wait for a new one."""
        if self._serving is not None:
            self._release(self._serving)
        closing = self.transport.is_closing()
        self._lingering.hold_reading(len(self.pipeline) > 1)
        self._serving = self.pipeline[-1][0] if self.pipeline and not closing else None
        self._lingering.watch_writes()
        if self._serving is not None:
            self._lingering.expect_head()
        super().on_response_complete()
        if closing or self._serving is not None:
            return
        if not self._in_head:
            self._deadline.set(REST_SECONDS)
            return
        self._wire.connections.rest(self)
        if self._begun:
            self._deadline.set(self.header_seconds)

    def _rest(self) -> None:
        self._wire.connections.rest(self)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _refuse(self, reply: ErrorReply) -> None:
        """Read no further: send the error `reply` after all earlier answers, then close the connection."""
        self._deaf = True
        self._deadline.stop()
        if not self._in_head:
            self._fail(reply)
            return
        self._refusal = reply
        request_id = request_id_line(self.headers) if self._begun else b""
        if self._serving is not None:
            self._lingering.hold_reading(True)
        # A request of its own keeps the order of answers, and has the id, the counts and the shape of all.
        self.parser = new_parser(self)
        self.parser.feed_data(b"GET / HTTP/1.1\r\nConnection: close\r\n" + request_id + b"\r\n")

    def _fail(self, reply: ErrorReply) -> None:
        """Stop reading the current body. The endpoint that reads it gets the error `reply`."""
        self._deaf = True
        arrival = self._arrival
        assert arrival is not None
        self._wire.bodies.release(arrival)
        if arrival.cycle.response_complete:
            self._lingering.finish()
            return
        arrival.failure, arrival.reusable = reply, False
        arrival.settle()
        arrival.cycle.body.clear()
        arrival.cycle.message_event.set()

    def _release(self, cycle: RequestResponseCycle) -> None:
        self._wire.bodies.release(arrival_of(cycle))

    def _unread(self) -> int:
        """Number of bytes to read and drop when the connection closes."""
        if self._brief or not (self._deaf or not self._in_head):
            return 0
        return UNREAD_HEAD if self._in_head else UNREAD_BODY

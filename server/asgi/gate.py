"""Middleware that refuses requests while the queue is full: after headers and key, before the body is
read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.engines.base import QueuePlaces
from server.errors import EngineBusyError
from server.exchange import EXCHANGE, Exchange

GATED = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/api/oqt/multi-model-query",
        "/invocations",
        "/inference/oneseek",
        "/inference/mistral",
        "/inference/llama",
    }
)
"""Paths of the endpoints that run a model, so that their requests take places in an engine's queue."""

SMALL_BODY = 16 * 1024
"""Maximum size in bytes of a refused request's body that is read and dropped, to keep the connection open."""


class Gates:
    """Refuses requests while the queue is full, and frees the queue places and adapters of requests that have
    ended.
    """

    def __init__(
        self, app: ASGIApp, queues: Sequence[QueuePlaces], check: Callable[[Exchange], None]
    ) -> None:
        self.app = app
        self.queues = queues
        self.check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises `EngineBusyError` if the queue is full."""
        if scope["type"] != "http" or scope["path"] not in GATED or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        try:
            for queue in self.queues:
                if queue.full:
                    self.check(exchange)
                    break
        except EngineBusyError as error:
            error.unread, error.places = not _is_small(exchange), self._scarcest.limit
            raise
        try:
            await self.app(scope, receive, self._counting(send))
        except EngineBusyError as error:
            if error.gate != "grammars":
                error.places = self._scarcest.limit
            raise
        finally:
            if exchange.held is not None and exchange.held.open:
                exchange.held.close()
            if exchange.lease is not None and exchange.lease.open:
                exchange.lease.close()

    @property
    def _scarcest(self) -> QueuePlaces:
        """The queue that has the fewest free places, among the queues of all bases."""
        return min(self.queues, key=lambda queue: queue.free)

    def _counting(self, send: Send) -> Send:
        """Wrap `send` to add OpenAI's rate-limit headers: the size of the queue, and its number of free
        places.
        """

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                queue = self._scarcest
                message.setdefault("headers", []).extend(
                    [
                        (b"x-ratelimit-limit-requests", b"%d" % queue.limit),
                        (b"x-ratelimit-remaining-requests", b"%d" % queue.free),
                    ]
                )
            await send(message)

        return send_counted


def _is_small(exchange: Exchange) -> bool:
    """True if the body is small enough to be read and dropped, so that the connection can be kept."""
    headers = exchange.headers
    if b"transfer-encoding" in headers or b"expect" in headers:
        return False
    length = headers.get(b"content-length", "0")
    return length.isascii() and length.isdigit() and int(length[:20]) <= SMALL_BODY

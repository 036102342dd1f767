"""Cancels requests whose client has disconnected or whose time is up, whatever they are doing at that
moment.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.wire.body import is_empty
from server.api.wire.disconnect import CancelScope, enter
from server.asgi.middleware import is_admin_path
from server.exchange import EXCHANGE, Exchange
from server.metrics.metrics import Metrics


class Cancellation:
    """Cancels a request when its client disconnects, or `limit` seconds after its headers arrived.

    Requests that change adapters are never cancelled, so that no change is half made.
    """

    def __init__(self, app: ASGIApp, limit: float | None, metrics: Metrics) -> None:
        self.app = app
        self.limit = limit
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. If it is cancelled, raises `ClientDisconnect`, `TimeoutError`, or `ApiError`
        (408) if its body did not arrive in time.
        """
        if scope["type"] != "http" or is_admin_path(scope["path"]):
            await self.app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        try:
            body = not is_empty(scope)
            with CancelScope(exchange, receive, self.limit, body=body) as cancel_scope:
                enter(scope, cancel_scope)
                await self.app(scope, cancel_scope.receive, _closing(cancel_scope, send))
        except Exception:
            if exchange.given_up and not exchange.generating:
                self.metrics.of(exchange).cancelled.labels(exchange.cancel_reason).inc()
            raise


def _closing(cancel_scope: CancelScope, send: Send) -> Send:
    """Wrap `send` so that the request can no longer be cancelled once the last part of its answer is sent."""

    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            cancel_scope.close()
        await send(message)

    return send_and_close

"""Middleware that raises the errors which the connection has found in a request, such as a body that is
too large. They are raised here, so that `Errors` answers them like any other error.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.asgi.http.arrival import ARRIVAL, Arrival
from server.errors import ApiError


class Refusals:
    """Raises the error with which the connection refuses a request, or the unread part of its body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises `ApiError` if the connection has refused it."""
        arrival: Arrival | None = scope.get(ARRIVAL)
        if arrival is not None and arrival.refusal is not None:
            raise ApiError(arrival.refusal)
        if arrival is not None and not arrival.whole:
            receive = _unless_failed(arrival, receive)
        await self.app(scope, receive, send)


def _unless_failed(arrival: Arrival, receive: Receive) -> Receive:
    async def receive_or_raise() -> Message:
        message = await receive()
        if arrival.failure is not None and message["type"] == "http.request":
            raise ApiError(arrival.failure)
        return message

    return receive_or_raise

"""Answers SageMaker's `POST /invocations` by passing the request on to chat completions, completions or
embeddings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from server.api.endpoints.chat import Chat
from server.api.endpoints.completions import Completions
from server.api.endpoints.context import Context
from server.api.endpoints.embeddings import Embeddings
from server.api.wire.body import JSON_TYPES, parse_body, read_body
from server.errors import bad_field
from server.exchange import EXCHANGE, Exchange


class Invocations:
    """Handler of `POST /invocations`. The body's field (`messages`, `prompt` or `input`) decides which
    endpoint answers.
    """

    def __init__(
        self, chat: Chat, completions: Completions, embeddings: Embeddings, context: Context
    ) -> None:
        self._context = context
        self._endpoints: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "messages": chat.create,
            "prompt": completions.create,
            "input": embeddings.create,
        }

    async def create(self, request: Request) -> Response:
        """Pass the request on to `/v1/chat/completions`, `/v1/completions` or `/v1/embeddings`, and return
        the answer.
        """
        exchange: Exchange = request.scope[EXCHANGE]
        limit = self._context.settings.max_body
        body = await read_body(request.scope, request.receive, limit, JSON_TYPES)
        exchange.body_bytes = len(body)
        fields = await self._context.aside(request, lambda: parse_body(body))
        named = [name for name in self._endpoints if fields.get(name) is not None]
        if len(named) != 1:
            found = f"has {' and '.join(named)}" if named else "has none of them"
            raise bad_field(
                named[0] if named else "messages",
                f"The body must have exactly one of messages, prompt and input, and {found}.",
                code="invalid_value",
            )
        return await self._endpoints[named[0]](Request(request.scope, _replay(body, request.receive)))


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return an ASGI `receive` that first repeats the body, which was already read."""
    unread = True

    async def receive_again() -> Message:
        nonlocal unread
        if not unread:
            return await receive()
        unread = False
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again

"""Sends a response that may be too large to encode on the event loop: it is encoded and sent in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.serving.one_thread import OneThread

_HEADERS = [(b"content-type", b"application/json")]


class LargeReply(Response):
    """Sends `pieces` of JSON as one response. Each piece is encoded in the worker thread `aside` after the
    piece before it was sent.
    """

    def __init__(self, pieces: Iterator[bytes], aside: OneThread) -> None:
        super().__init__()
        self._pieces = pieces
        self._aside = aside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. Errors in the first piece are raised before anything is sent."""
        piece = await self._next()
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        while piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await self._next()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> bytes:
        return await self._aside.run(partial(next, self._pieces, b""))

"""`GET /openapi.json` and `GET /docs`: what the server takes, for programs and for people."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from server.api.openapi.document import make_document
from server.api.openapi.page import make_page


class Documents:
    """Both endpoints. Neither names an adapter, a setting or a release, so they are open to all.

    Each is made when it is first asked for, and kept.
    """

    def __init__(self, *, changeable: bool) -> None:
        self._openapi = _Kept(partial(_plain, changeable=changeable), "application/json")
        self._docs = _Kept(make_page, "text/html; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document."""
        return await self._openapi.reply(request)

    async def docs(self, request: Request) -> Response:
        """A page that shows the document and sends requests."""
        return await self._docs.reply(request)


def _plain(*, changeable: bool) -> tuple[bytes, Mapping[str, str]]:
    return make_document(changeable=changeable), {}


class _Kept:
    """One text, made once."""

    def __init__(self, make: Callable[[], tuple[bytes, Mapping[str, str]]], media_type: str) -> None:
        self._make = make
        self._media_type = media_type
        self._made: tuple[bytes, Mapping[str, str]] | None = None

    async def reply(self, request: Request) -> Response:
        """The text, or 304 if the client has it."""
        if self._made is None:
            self._made = await asyncio.to_thread(self._make)
        body, headers = self._made
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {
            **headers,
            "ETag": tag,
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=self._media_type)

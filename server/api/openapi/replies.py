"""Answers `GET /openapi.json` with the OpenAPI document, and `GET /docs` with a page that shows it
to people.
"""

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
    """Handlers of `/openapi.json` and `/docs`. They need no key, because they reveal no adapter, setting or
    release.

    Each document is made at its first request and cached.
    """

    def __init__(self, *, changeable: bool) -> None:
        self._openapi = _Kept(partial(_plain, changeable=changeable), "application/json")
        self._docs = _Kept(make_page, "text/html; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        """Answer with the OpenAPI document."""
        return await self._openapi.reply(request)

    async def docs(self, request: Request) -> Response:
        """Answer with a page that shows the OpenAPI document and can send requests."""
        return await self._docs.reply(request)


def _plain(*, changeable: bool) -> tuple[bytes, Mapping[str, str]]:
    return make_document(changeable=changeable), {}


class _Kept:
    """A document (OpenAPI as JSON, or the page that shows it) that is made once and cached."""

    def __init__(self, make: Callable[[], tuple[bytes, Mapping[str, str]]], media_type: str) -> None:
        self._make = make
        self._media_type = media_type
        self._made: tuple[bytes, Mapping[str, str]] | None = None

    async def reply(self, request: Request) -> Response:
        """Answer with the document, or with 304 if the client already has it."""
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

"""Serves the web page: `GET /` and `GET /page/{file}`. The page's security policy allows only the page's own
files.

A file that has changed is read from disk again, so the change is visible when the page is next loaded. The
files contain no data of this server: the page gets its data from the API, with the key that its user enters.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent
INDEX = "index.html"
MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Maps each file suffix to its media type. Files with other suffixes are not served."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
"""Content security policy of the web page. Only DOMPurify may create HTML from text."""
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """Contents of a file of the web page, cached until the file changes."""

    stamp: tuple[int, int]
    """Time of the file's last change in nanoseconds, and the file's size in bytes."""
    body: bytes
    packed: bytes
    tag: str
    media_type: str


class Page:
    """Handlers of the web page's two endpoints. Only files that exist when the server starts are served."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._paths = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.suffix in MEDIA_TYPES and path.is_file()
        }
        self._read: dict[str, PageFile] = {}

    async def index(self, request: Request) -> Response:
        """Serve the web page to clients that accept HTML; answer others with 404."""
        if "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(404)
        reply = await self._send(request, INDEX)
        reply.headers["Vary"] = "Accept, Accept-Encoding"
        return reply

    async def file(self, request: Request) -> Response:
        """Serve a script, a style sheet or an image of the web page; answer 404 for other names."""
        name = request.path_params["file"]
        if name not in self._paths or name == INDEX:
            raise HTTPException(404)
        return await self._send(request, name)

    async def _send(self, request: Request, name: str) -> Response:
        file = await asyncio.to_thread(self._file, name)
        headers = {**HEADERS, "ETag": file.tag, "Vary": "Accept-Encoding"}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(file.packed, headers=headers, media_type=file.media_type)
        return Response(file.body, headers=headers, media_type=file.media_type)

    def _file(self, name: str) -> PageFile:
        path = self._paths[name]
        stat = path.stat()
        stamp = stat.st_mtime_ns, stat.st_size
        known = self._read.get(name)
        if known is None or known.stamp != stamp:
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            packed = gzip.compress(body, 9, mtime=0)
            known = self._read[name] = PageFile(stamp, body, packed, tag, MEDIA_TYPES[path.suffix])
        return known

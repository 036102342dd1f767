"""Helpers for reading HTTP requests: the parser, a head without its Upgrade header, and a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import httptools


def new_parser(protocol: object) -> httptools.HttpRequestParser:
    """Return a request parser with callbacks to `protocol`, configured as in uvicorn."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def head_without_upgrade(
    method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """Return a request's head as bytes, without its Upgrade header."""
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    lines += [b"%s: %s" % (name, value) for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def announced_size(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the body's size in bytes by Content-Length; None for a chunked body. The parser has already
    checked Content-Length and Transfer-Encoding.
    """
    named = dict(headers)
    if b"transfer-encoding" in named:
        return None
    return int(named.get(b"content-length", b"0"))


def is_plain(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """True if the body is sent as it is, whole or in chunks. The parser takes `gzip, chunked` for chunks."""
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    return not codings or (len(codings) == 1 and codings[0].strip().lower() == b"chunked")


def request_id_line(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the request's X-Request-ID as a header line; empty if the request has none."""
    return b"".join(b"%s: %s\r\n" % pair for pair in headers if pair[0] == b"x-request-id")


class Deadline:
    """A timer that calls `missed` when its seconds have passed, unless it is stopped or set again before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, missed: Callable[[], None]) -> None:
        self._loop = loop
        self._missed = missed
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """True if the timer is running."""
        return self._timer is not None

    def set(self, seconds: float) -> None:
        """Start the timer with this many seconds. If it is already running, start it again."""
        self.stop()
        self._timer = self._loop.call_later(seconds, self._miss)

    def stop(self) -> None:
        """Stop the timer. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _miss(self) -> None:
        self._timer = None
        self._missed()

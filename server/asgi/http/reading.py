"""Helpers for reading HTTP: a parser, a head written out again, and a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import httptools


def new_parser(protocol: object) -> httptools.HttpRequestParser:
    """A request parser with callbacks to `protocol`, configured as in uvicorn."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def head_without_upgrade(
    method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """A request's head, written out again without Upgrade headers."""
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    lines += [b"%s: %s" % (name, value) for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def announced_size(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Size of the body from the head; None for a chunked body. The parser has checked both headers."""
    named = dict(headers)
    if b"transfer-encoding" in named:
        return None
    return int(named.get(b"content-length", b"0"))


def request_id_line(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The request's ID header as a line; empty without one."""
    return b"".join(b"%s: %s\r\n" % pair for pair in headers if pair[0] == b"x-request-id")


class Deadline:
    """Calls `missed` when the time set last has passed, unless it is stopped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, missed: Callable[[], None]) -> None:
        self._loop = loop
        self._missed = missed
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """True if the timer runs."""
        return self._timer is not None

    def set(self, seconds: float) -> None:
        """Start the timer, or restart it, with this many seconds."""
        self.stop()
        self._timer = self._loop.call_later(seconds, self._miss)

    def stop(self) -> None:
        """Stop the timer for reading. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _miss(self) -> None:
        self._timer = None
        self._missed()

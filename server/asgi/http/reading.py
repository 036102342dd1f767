"""Small parts of reading HTTP: a parser, a head written out again and a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import httptools


def new_parser(protocol: object) -> httptools.HttpRequestParser:
    """A parser of requests that calls `protocol` back, set as uvicorn sets it."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def head_without_upgrade(
    method: bytes, url: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """A request's head, written out again without its offers to change the protocol."""
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    lines += [b"%s: %s" % (name, value) for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def announced_size(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Bytes of a body, as its head says; None if it comes in chunks. The parser has checked both headers."""
    named = dict(headers)
    if b"transfer-encoding" in named:
        return None
    return int(named.get(b"content-length", b"0"))


def request_id_line(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The header that names a request, as a line; nothing if it has none."""
    return b"".join(b"%s: %s\r\n" % pair for pair in headers if pair[0] == b"x-request-id")


class Deadline:
    """Calls `missed` once the time that was set last is over, unless it is stopped before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, missed: Callable[[], None]) -> None:
        self._loop = loop
        self._missed = missed
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether something is waited for."""
        return self._timer is not None

    def set(self, seconds: float) -> None:
        """Wait for this long from now on."""
        self.stop()
        self._timer = self._loop.call_later(seconds, self._miss)

    def stop(self) -> None:
        """Wait for nothing. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _miss(self) -> None:
        self._timer = None
        self._missed()

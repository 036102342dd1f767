"""A transport that lingers at its end, and drops who reads nothing."""

from __future__ import annotations

import asyncio

import pytest

from server.asgi.http import transport as module
from server.asgi.http.transport import LingeringTransport

pytestmark = pytest.mark.anyio


class Inner(asyncio.Transport):
    """A connection to a client that takes bytes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.calls: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.unsent += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def resume_reading(self) -> None:
        self.calls.append("resume")


@pytest.fixture
async def inner() -> Inner:
    return Inner()


def wrap(inner: Inner, unread: int = 0) -> LingeringTransport:
    return LingeringTransport(inner, asyncio.get_running_loop(), lambda: unread)


async def test_a_client_that_reads_is_kept_and_one_that_stops_is_dropped(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LingeringTransport, "write_seconds", 0.05)
    transport = wrap(inner)
    transport.write(b"x" * 1000)
    transport.watch_writes()
    for _ in range(20):
        inner.unsent -= 1
        transport.write(b"x")  # as a stream goes on; what counts is what leaves
        await asyncio.sleep(0.02)
    assert not inner.calls
    for _ in range(200):
        transport.write(b"x")
        await asyncio.sleep(0.02)
        if inner.calls:
            break
    assert inner.calls == ["abort"]


async def test_nothing_is_watched_once_all_is_sent(inner: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LingeringTransport, "write_seconds", 0.01)
    transport = wrap(inner)
    transport.write(b"x")
    transport.watch_writes()
    inner.unsent = 0
    await asyncio.sleep(0.05)
    assert not inner.calls


async def test_an_answer_that_nobody_takes_does_not_keep_a_closed_connection(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LingeringTransport, "write_seconds", 0.01)
    transport = wrap(inner)
    transport.write(b"x")
    transport.close()
    for _ in range(200):
        await asyncio.sleep(0.01)
        if "abort" in inner.calls:
            break
    assert inner.calls == ["close", "abort"]


async def test_a_close_waits_for_what_may_still_come_but_not_for_ever(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)
    transport = wrap(inner, unread=1000)
    transport.close()
    transport.close()
    assert transport.is_closing()
    assert inner.calls == ["write_eof", "resume"]
    transport.drop(b"x" * 1000)
    transport.write(b"late")
    assert inner.unsent == 0
    for _ in range(200):
        await asyncio.sleep(0.01)
        if "close" in inner.calls:
            break
    assert inner.calls == ["write_eof", "resume", "close"]


async def test_what_is_dropped_is_bounded(inner: Inner) -> None:
    transport = wrap(inner, unread=1000)
    transport.close()
    transport.drop(b"x" * 1000)
    assert "close" not in inner.calls
    transport.drop(b"x")
    assert inner.calls[-1] == "close"


async def test_without_anything_unread_a_close_is_a_close(inner: Inner) -> None:
    wrap(inner).close()
    assert inner.calls == ["close"]

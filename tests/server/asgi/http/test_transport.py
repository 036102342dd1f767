"""A transport that lingers at its end, and drops who reads nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from server.asgi.http.transport import LINGER_SECONDS, WRITE_SECONDS, LingeringTransport

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Inner(asyncio.Transport):
    """A connection to a client that takes bytes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.unsent = 0
        self.writes: list[bytes] = []
        self.calls: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.unsent += len(data)
        self.writes.append(bytes(data))

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


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose timers run when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[asyncio.TimerHandle] = []

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        self.timers.append(asyncio.TimerHandle(delay, callback, args, self))
        return self.timers[-1]

    def pass_time(self) -> int:
        """Run every timer that is set; how many there were."""
        due, self.timers = [timer for timer in self.timers if not timer.cancelled()], []
        for timer in due:
            timer._run()
        return len(due)


@pytest.fixture
def clock() -> Iterator[Clock]:
    loop = Clock()
    yield loop
    loop.close()


def wrap(inner: Inner, clock: Clock, unread: int = 0) -> LingeringTransport:
    return LingeringTransport(inner, clock, lambda: unread)


def test_a_client_that_reads_is_kept_and_one_that_stops_is_dropped(clock: Clock) -> None:
    inner = Inner()
    transport = wrap(inner, clock)
    transport.write(b"x" * 1000)
    transport.watch_writes()
    assert [timer.when() for timer in clock.timers] == [WRITE_SECONDS]
    for _ in range(20):
        inner.unsent -= 1
        transport.write(b"x")  # as a stream goes on; what counts is what leaves
        assert clock.pass_time() == 1
    assert not inner.calls
    transport.write(b"x")
    clock.pass_time()
    assert inner.calls == ["abort"]


def test_nothing_is_watched_once_all_is_sent(clock: Clock) -> None:
    inner = Inner()
    transport = wrap(inner, clock)
    transport.write(b"x")
    transport.watch_writes()
    inner.unsent = 0
    assert clock.pass_time() == 1
    assert clock.pass_time() == 0
    assert not inner.calls


def test_an_answer_that_nobody_takes_does_not_keep_a_closed_connection(clock: Clock) -> None:
    inner = Inner()
    transport = wrap(inner, clock)
    transport.write(b"x")
    transport.close()
    assert inner.calls == ["close"]
    clock.pass_time()
    assert inner.calls == ["close", "abort"]


def test_a_close_waits_for_what_may_still_come_but_not_for_ever(clock: Clock) -> None:
    inner = Inner()
    transport = wrap(inner, clock, unread=1000)
    transport.close()
    transport.close()
    assert transport.is_closing()
    assert inner.calls == ["write_eof", "resume"]
    assert [timer.when() for timer in clock.timers] == [LINGER_SECONDS]
    transport.drop(b"x" * 1000)
    transport.write(b"late")
    assert inner.unsent == 0
    assert clock.pass_time() == 1
    assert inner.calls == ["write_eof", "resume", "close"]


def test_what_is_dropped_is_bounded(clock: Clock) -> None:
    inner = Inner()
    transport = wrap(inner, clock, unread=1000)
    transport.close()
    transport.drop(b"x" * 1000)
    assert "close" not in inner.calls
    transport.drop(b"x")
    assert inner.calls[-1] == "close"


def test_without_anything_unread_a_close_is_a_close(clock: Clock) -> None:
    inner = Inner()
    wrap(inner, clock).close()
    assert inner.calls == ["close"]


def test_a_head_is_sent_together_with_the_beginning_of_its_body(clock: Clock) -> None:
    inner = Inner()
    transport = wrap(inner, clock)
    for _ in range(2):  # the second time, what is written is counted
        transport.expect_head()
        for data in (CONTINUE, HEAD, b"first", b"second"):
            transport.write(data)
        assert inner.writes == [CONTINUE, HEAD + b"first", b"second"]
        inner.writes.clear()
        transport.watch_writes()


@pytest.mark.parametrize("unread", [0, 1000])
def test_a_head_without_a_body_is_sent_at_the_end(clock: Clock, unread: int) -> None:
    inner = Inner()
    transport = wrap(inner, clock, unread)
    transport.expect_head()
    transport.write(HEAD)
    assert inner.writes == []
    transport.watch_writes()
    assert b"".join(inner.writes) == HEAD
    transport.expect_head()
    transport.write(HEAD)
    transport.close()
    assert b"".join(inner.writes) == HEAD * 2
    transport.expect_head()
    transport.write(b"late")
    assert b"late" not in b"".join(inner.writes)


def test_a_head_of_a_lost_connection_is_not_sent(clock: Clock) -> None:
    inner = Inner()
    transport = wrap(inner, clock)
    transport.expect_head()
    transport.write(HEAD)
    transport.abort()
    transport.watch_writes()
    assert inner.writes == []


def test_a_connection_that_is_lost_leaves_no_timer(clock: Clock) -> None:
    inner = Inner()
    transport = wrap(inner, clock, unread=1000)
    transport.write(b"x")
    transport.watch_writes()
    transport.close()
    transport.forget()
    assert clock.pass_time() == 0

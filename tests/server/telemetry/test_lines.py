"""Lines reach their reader in order, and no reader holds anybody up."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server.telemetry.lines import LineWriter
from server.telemetry.records import JsonFormatter, LineHandler

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes are filled and read as POSIX has them")
OpenWriter = Callable[..., LineWriter]
LONG = 1 << 20
"""Bytes that no pipe takes at once."""
QUICK = 10
"""Seconds in which what does not wait is done on any machine. What waits here would wait for ever."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for end in (read, write):
        os.close(end)


@pytest.fixture
def open_writer() -> Iterator[Callable[..., LineWriter]]:
    """Opens writers whose threads end with the test."""
    opened: list[LineWriter] = []

    def open_one(descriptor: int, **options: Any) -> LineWriter:
        opened.append(LineWriter(descriptor, **options))
        return opened[-1]

    yield open_one
    for writer in opened:
        writer.close(0)


def fill(write: int) -> int:
    """Fill a pipe; how many bytes it took."""
    os.set_blocking(write, False)
    filled = 0
    try:
        while True:
            filled += os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    return filled


def read_all(read: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(read, count - len(data))
    return data


@pytest.mark.parametrize("direct", [True, False])
def test_lines_arrive_in_order(pipe: tuple[int, int], open_writer: OpenWriter, direct: bool) -> None:
    read, write = pipe
    writer = open_writer(write, direct=direct)
    lines = [b"%d\n" % number for number in range(1000)]
    for line in lines[:500]:
        writer.write(line)
    for line in lines[500:]:
        writer.write_later(lambda line=line: line, len(line))
    assert writer.flush(10)
    assert read_all(read, len(b"".join(lines))) == b"".join(lines)
    assert writer.dropped == 0


@pytest.mark.parametrize("direct", [True, False])
def test_a_full_pipe_holds_nobody_up_and_its_missing_lines_are_counted(
    pipe: tuple[int, int], open_writer: OpenWriter, direct: bool
) -> None:
    read, write = pipe
    filled = fill(write)
    writer = LineWriter(write, direct=direct, most_bytes=1000, dropped=lambda count: b"missing %d\n" % count)
    began = time.perf_counter()
    for _ in range(200):
        writer.write(b"123456789\n")
    assert time.perf_counter() - began < QUICK
    assert writer.dropped == 100
    assert read_all(read, filled) == b"x" * filled
    assert writer.flush(10)
    writer.write(b"later\n")
    assert writer.flush(10)
    assert read_all(read, 1018) == b"123456789\n" * 100 + b"missing 100\nlater\n"


def test_the_end_does_not_wait_for_a_reader_that_reads_nothing(
    pipe: tuple[int, int], open_writer: OpenWriter
) -> None:
    _, write = pipe
    fill(write)
    writer = open_writer(write)
    writer.write(b"unread\n")
    began = time.perf_counter()
    writer.close(0.1)
    assert time.perf_counter() - began < 0.1 + QUICK
    writer.write(b"late\n")
    assert writer.dropped == 1
    # The thread that waits for the reader ends with it.
    os.read(pipe[0], 1 << 20)


def test_a_reader_that_has_gone_is_no_error(pipe: tuple[int, int], open_writer: OpenWriter) -> None:
    read, write = os.pipe()
    os.close(read)
    writer = open_writer(write)
    try:
        for _ in range(10):
            writer.write(b"nobody\n")
            writer.flush(1)
        assert writer.dropped >= 9
    finally:
        writer.close()
        os.close(write)


def test_a_line_that_cannot_be_made_does_not_end_the_log(
    pipe: tuple[int, int], open_writer: OpenWriter
) -> None:
    read, write = pipe
    writer = open_writer(write)

    def fail() -> bytes:
        raise ValueError("no")

    writer.write_later(fail, 1)
    writer.write(b"next\n")
    assert writer.flush(10)
    assert os.read(read, 4096).splitlines()[-1] == b"next"


def test_a_record_is_written_before_the_call_returns(pipe: tuple[int, int], open_writer: OpenWriter) -> None:
    """What is logged last before a crash is what matters most."""
    read, write = pipe
    handler = LineHandler(open_writer(write, direct=True))
    handler.setFormatter(JsonFormatter())
    handler.emit(logging.LogRecord("oneseek.test", logging.ERROR, "", 0, "a %s", ("fault",), None))
    os.set_blocking(read, False)
    assert b'"level": "error", "logger": "oneseek.test", "message": "a fault"' in os.read(read, 4096)


@pytest.mark.timeout(20)
def test_a_long_record_waits_for_nobody(pipe: tuple[int, int], open_writer: OpenWriter) -> None:
    read, write = pipe
    handler = LineHandler(open_writer(write, direct=True))
    began = time.perf_counter()
    handler.emit(logging.LogRecord("oneseek.test", logging.ERROR, "", 0, "x" * LONG, (), None))
    assert time.perf_counter() - began < QUICK
    assert read_all(read, LONG + 1).endswith(b"x\n")


PROGRAM = """
import logging, sys
from server.telemetry.records import log_to
log_to(sys.stderr, "info", as_json=True)
logging.getLogger("oneseek.test").info("one")
logging.getLogger("oneseek.test").debug("two")
try:
    raise ValueError("three")
except ValueError:
    logging.getLogger("oneseek.test").exception("four")
"""


def test_records_are_lines_of_json_on_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["one", "four"]
    assert "ValueError: three" in lines[1]["exception"]
    assert set(lines[0]) == {"time", "event", "level", "logger", "message"}

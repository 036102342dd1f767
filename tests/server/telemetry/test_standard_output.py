"""What `oneseek serve` writes: lines for people on a terminal, JSON if asked for, and it waits for nobody."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs terminals and pipes as POSIX has them")
BODY = {"prompt": "hej", "max_tokens": 2, "ignore_eos": True}
Serve = Callable[..., tuple[subprocess.Popen[bytes], str]]


@pytest.fixture
def serve(tiny_base: Path, tmp_path: Path) -> Iterator[Serve]:
    """Starts a server with a standard output of the test's; the server, and where it answers."""
    started: list[subprocess.Popen[bytes]] = []

    def start(output: int, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
        common = ("--port", "0", "--home", str(tmp_path), "--threads", "1", "--base-model", str(tiny_base))
        errors = tmp_path / "errors"
        with errors.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "server", "serve", *common, *arguments], stdout=output, stderr=file
            )
        started.append(process)
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            found = re.search(r"ready on ([^\s\"]+)", errors.read_text())
            if found:
                return process, found[1]
            time.sleep(0.02)
        raise AssertionError(errors.read_text())

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_terminal_shows_lines_for_people(serve: Serve) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        process, url = serve(theirs)
        assert httpx.post(f"{url}/v1/completions", json=BODY, timeout=60).status_code == 200
        assert select.select([ours], [], [], 10)[0]
        line = os.read(ours, 4096).decode()
        assert re.fullmatch(r"[\d:]{8} 200 POST /v1/completions base \S+ \d+\+2 tokens first .*\r\n", line), (
            line
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_full_pipe_stops_neither_answers_nor_the_end(serve: Serve, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        filled = 0
        while True:
            filled += os.write(write, b"\n" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    try:
        process, url = serve(write, "--log-format", "json")
        with httpx.Client(base_url=url, timeout=20) as client:
            for _ in range(3):
                assert client.post("/v1/completions", json=BODY).status_code == 200
            assert client.get("/live").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        os.close(read)
        os.close(write)
    events = [json.loads(line)["event"] for line in (tmp_path / "errors").read_text().splitlines()]
    assert (events[0], events[-1], set(events) <= {"start", "log", "stop"}) == ("start", "stop", True)

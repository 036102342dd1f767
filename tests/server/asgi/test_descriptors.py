"""File descriptors that are used up while clients still come, in a real process."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

import httpx
import psutil
import pytest

from tests.server.http_server import eventually
from tests.server.server_process import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits another process")

LEFT, CLIENTS = 8, 60
"""Descriptors that the server may still open, and those who come."""
LOOK = 3.0
"""Seconds for which its work is measured."""
ASK = {"prompt": "Hi", "max_tokens": 1}


@contextmanager
def exhausted(process: psutil.Process, left: int) -> Generator[None]:
    """The process may open `left` more files for a moment."""
    import resource

    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (process.num_fds() + left, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)


def work(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def test_without_descriptors_those_who_are_connected_are_answered(
    serve: Callable[..., ServerProcess],
) -> None:
    server = serve()
    url = httpx.URL(server.url())
    process = psutil.Process(server.process.pid)
    with ExitStack() as stack, httpx.Client(base_url=url, timeout=30) as client:
        assert client.post("/v1/completions", json=ASK).status_code == 200
        with exhausted(process, LEFT):
            for _ in range(CLIENTS):
                stack.enter_context(socket.create_connection((url.host, url.port or 80), timeout=30))
            time.sleep(0.5)
            before = work(process)
            end = time.monotonic() + LOOK
            answered = 0
            while time.monotonic() < end:
                assert client.post("/v1/completions", json=ASK).status_code == 200
                answered += 1
                time.sleep(0.25)
            assert work(process) - before < LOOK / 3 + 0.02 * answered, "it waits, and does not spin"
        stack.close()

        def is_answered() -> bool:
            try:
                return httpx.get(url.join("/live"), timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        assert eventually(is_answered, 20)
        assert client.post("/v1/completions", json=ASK).status_code == 200
        assert eventually(lambda: server.log.read_text().count("file descriptors") > 1)
    log = server.log.read_text()
    assert "Traceback" not in log
    told = [line for line in log.splitlines() if "file descriptors" in line]
    assert ["ulimit -n" in line for line in told] == [True, False]

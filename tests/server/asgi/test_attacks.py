"""A real server process under attack: what it holds is bounded and given back."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import psutil
import pytest

from tests.server.server_process import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads what the process holds")

MIB = 1 << 20
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
ASK = {"prompt": "Hi", "max_tokens": 1}
CLIENTS = 60


def test_bodies_and_trailers_without_end_hold_little_and_nothing_afterwards(
    serve: Callable[..., ServerProcess],
) -> None:
    server = serve("--max-body", "4MiB", "--max-bodies-memory", "24MiB")
    url = httpx.URL(server.url())
    process = psutil.Process(server.process.pid)

    def held() -> int:
        return process.memory_info().rss

    def connect() -> socket.socket:
        return socket.create_connection((url.host, url.port or 80), timeout=30)

    def send(connection: socket.socket, *parts: bytes) -> None:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass  # it was refused meanwhile

    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(3):
            assert client.post("/v1/completions", json=ASK).status_code == 200
        before, most = held(), 0
        with ExitStack() as stack:
            connections = [stack.enter_context(connect()) for _ in range(CLIENTS)]
            for connection in connections:
                body = b'{"prompt": "' + b"x" * (4 * MIB - 100)
                send(connection, HEAD + b"Content-Length: %d\r\n\r\n" % (4 * MIB), body)
                most = max(most, held())
            assert client.post("/v1/completions", json=ASK).status_code == 200, "a small body has its place"
        # Without a limit these are 240 MiB.
        assert most - before < 100 * MIB
        with connect() as connection:
            send(connection, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", *[b"b" * MIB] * 64)
            most = max(most, held())
        assert most - before < 100 * MIB
        end = time.monotonic() + 30
        while held() - before > 20 * MIB:
            assert time.monotonic() < end, f"{(held() - before) / MIB:.0f} MiB are kept"
            time.sleep(0.1)
        assert client.post("/v1/completions", json=ASK).status_code == 200

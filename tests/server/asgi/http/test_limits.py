"""A server at its limits, over real connections: each client is told, and the others notice nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from adapters.lora.manifest import Adapter
from server.asgi.http import wire
from server.asgi.http.transport import LingeringTransport
from server.config.settings import Settings
from tests.server.http_server import Serving, make_app, served

CHAT = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
PLACES = 3


@pytest.fixture(scope="module")
def small(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[Serving]:
    """A server with a place for each of three connections, one of which the client of `Serving` takes."""
    settings = Settings(port=0, max_num_seqs=2, log_level="warning", drain_seconds=1, max_connections=PLACES)
    with served(make_app(tiny_base, voices, graphs, settings), settings, voices) as serving:
        yield serving


def connect(serving: Serving) -> socket.socket:
    host, port = serving.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def read(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def ends(step: Callable[[], None]) -> bool:
    """Whether the server closes the connection on which `step` sends, again and again."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            step()
        except OSError:
            return True
        time.sleep(0.002)
    return False


@pytest.mark.parametrize("megabytes", [5, 20])
@pytest.mark.parametrize("chunks", [False, True])
def test_a_body_that_is_too_large_is_told_so_every_time(
    serving: Serving, megabytes: int, chunks: bool
) -> None:
    """Also to clients that read nothing before all is sent, as most do."""
    size = megabytes << 20
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "Transfer-Encoding: chunked" if chunks else f"Content-Length: {size}"
    for _ in range(3):
        with connect(serving) as connection:
            connection.sendall(head.encode() + b"\r\n\r\n")
            if chunks:
                connection.sendall(b"%x\r\n" % size)
            for _ in range(megabytes):
                connection.sendall(b"x" * (1 << 20))
                time.sleep(0.005)  # so that the server has refused it by then
            answer = read(connection)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert answer.count(b'"body_too_large"') == 1
    assert serving.http.post(CHAT, json=ASK).status_code == 200


def test_a_refused_client_that_sends_on_is_cut_off_in_the_end(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.asgi.http.transport.LINGER_SECONDS", 0.3)
    with connect(serving) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 999999999\r\n\r\n".encode())
        assert read(connection).startswith(b"HTTP/1.1 413 "), "and the end of the answer is seen"
        assert ends(lambda: connection.sendall(b"x"))


def test_beyond_the_limit_probes_are_answered_and_others_are_told(
    small: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "IDLE_SECONDS", 3600.0)
    with ExitStack() as stack:
        for _ in range(PLACES):
            stack.enter_context(connect(small))
        end = time.monotonic() + 20
        while True:  # until the server has taken them
            refused = httpx.post(small.url + CHAT, json=ASK)
            if refused.status_code == 503:
                break
            assert time.monotonic() < end
        assert refused.json()["error"]["code"] == "too_many_connections"
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["connection"] == "close"
        assert refused.headers["x-request-id"]
        for path in ("/live", "/ready", "/health", "/metrics"):
            assert httpx.get(small.url + path).status_code == 200
        monkeypatch.setattr(wire, "IDLE_SECONDS", 0.0)
        assert httpx.post(small.url + CHAT, json=ASK).status_code == 200, "one that idles gives way"
    assert small.http.post(CHAT, json=ASK).status_code == 200


def test_a_client_that_never_reads_is_dropped_and_others_are_served(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LingeringTransport, "write_seconds", 0.5)
    with connect(serving) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)

        def ask_and_look() -> None:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert serving.http.get("/live").status_code == 200

        assert ends(ask_and_look)

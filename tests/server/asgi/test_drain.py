"""How a server ends: it drains in words, and its exit code is 0."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from tests.server.server_process import ServerProcess

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals that a process can be sent")

ASK = {"prompt": "Vem", "max_tokens": 240, "n": 16, "ignore_eos": True, "stream": True}
INT, TERM = signal.SIGINT, signal.SIGTERM
Serve = Callable[..., ServerProcess]


def is_open(url: str) -> bool:
    try:
        httpx.get(url + "/live", timeout=60)
    except httpx.TransportError:
        return False
    return True


def error_of(lines: list[str]) -> str:
    *_, last, done = lines
    assert done == "data: [DONE]"
    return json.loads(last.removeprefix("data: "))["error"]["code"]


@pytest.mark.parametrize(
    ("arguments", "signals"),
    [
        (("--drain-seconds", "0"), (TERM,)),
        (("--drain-seconds", "60"), (INT, INT)),
        (("--drain-seconds", "60", "--drain-delay", "60"), (TERM, TERM)),
    ],
)
def test_streams_that_cannot_end_in_time_are_told(
    serve: Serve, arguments: tuple[str, ...], signals: tuple[signal.Signals, ...]
) -> None:
    server = serve(*arguments)
    assert error_of(server.stream(ASK, *signals)) == "engine_dead"
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.log.read_text()
    assert "ERROR" not in server.log.read_text()


@pytest.mark.parametrize("number", [INT, TERM])
def test_streams_have_their_time_to_end(serve: Serve, number: signal.Signals) -> None:
    server = serve("--drain-seconds", "60")
    *_, last, done = server.stream(ASK, number)
    assert '"finish_reason":"length"' in last
    assert done == "data: [DONE]"
    assert server.process.wait(60) == 0


def test_a_server_that_drains_says_so_to_new_requests(serve: Serve) -> None:
    server = serve("--drain-delay", "3600")
    url = server.url()
    with httpx.Client(base_url=url, timeout=60) as kept:
        assert kept.get("/ready").status_code == 200
        server.process.send_signal(TERM)
        end = time.monotonic() + 10
        while kept.get("/ready").status_code == 200:
            assert time.monotonic() < end
            time.sleep(0.01)
        # On connections of their own, as a balancer's and its clients' are.
        for path, status in (("/ready", 503), ("/health", 503), ("/live", 200), ("/metrics", 200)):
            assert httpx.get(url + path, timeout=60).status_code == status
        refused = httpx.post(url + "/v1/completions", json=ASK, timeout=60)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["connection"] == "close"
        assert kept.get("/live").status_code == 200
    server.process.send_signal(TERM)
    assert server.process.wait(60) == 0


def test_the_listener_closes_after_the_delay_and_what_runs_ends_whole(serve: Serve) -> None:
    server = serve("--drain-seconds", "60", "--drain-delay", "1")
    url, ended = server.url(), list[str]()
    running = threading.Thread(target=lambda: ended.extend(server.stream(ASK)))
    running.start()
    with httpx.Client(base_url=url, timeout=60) as kept:
        while kept.get("/health").json()["queue"]["running"] == 0:
            time.sleep(0.01)
        signalled = time.monotonic()
        server.process.send_signal(TERM)
        while is_open(url):
            assert time.monotonic() - signalled < 60
        assert time.monotonic() - signalled > 0.9
        if running.is_alive():  # else the server has ended
            with suppress(httpx.TransportError):  # or is about to
                late = kept.post("/v1/completions", json=ASK)
                assert (late.status_code, late.headers["connection"]) == (503, "close")
    running.join(60)
    assert ended[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in ended[-2]
    assert server.process.wait(60) == 0


def test_an_idle_server_ends_at_once(serve: Serve) -> None:
    server = serve("--drain-seconds", "60")
    with httpx.Client(base_url=server.url()) as idle:
        idle.get("/live")
        server.process.send_signal(TERM)
        assert server.process.wait(60) == 0

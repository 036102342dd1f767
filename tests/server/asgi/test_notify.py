"""What systemd is told: sd_notify's datagrams, on a real socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.asgi.notify import ServiceNotifier
from tests.server.server_process import ServerProcess

pytestmark = pytest.mark.skipif(os.name != "posix", reason="systemd's sockets are for Linux")

Serve = Callable[..., ServerProcess]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The end of the socket that systemd reads."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reading:
        reading.bind(str(tmp_path / "notify"))
        reading.settimeout(60)
        yield reading


def received(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def drained(manager: socket.socket) -> list[bytes]:
    """Every datagram that has arrived."""
    manager.setblocking(False)
    found: list[bytes] = []
    while True:
        try:
            found.append(manager.recv(4096))
        except BlockingIOError:
            return found


def test_a_server_reports_its_start_its_life_and_its_end(
    serve: Serve, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.getsockname()))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    server = serve()
    first = received(manager)
    assert first.pop("READY") == "1"
    assert re.fullmatch(r"ready on http://127\.0\.0\.1:[0-9]+", first.pop("STATUS"))
    assert not first
    assert server.url() in server.log.read_text()
    assert [received(manager) for _ in range(2)] == [{"WATCHDOG": "1"}] * 2
    server.process.send_signal(signal.SIGTERM)
    while (last := received(manager)) == {"WATCHDOG": "1"}:
        pass
    assert last["STOPPING"] == "1"
    assert server.process.wait(60) == 0


def test_a_start_that_is_ended_is_never_ready(
    serve: Serve, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.getsockname()))
    server = serve()
    server.said("(base) ")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert not any(b"READY=1" in datagram for datagram in drained(manager))


def test_the_variables_are_taken_so_that_no_child_inherits_them(manager: socket.socket) -> None:
    environ = {
        "NOTIFY_SOCKET": str(manager.getsockname()),
        "WATCHDOG_USEC": "10",
        "WATCHDOG_PID": "1",
        "A": "",
    }
    notifier = ServiceNotifier.take(environ)
    assert environ == {"A": ""}
    notifier.sign_of_life()  # another process is the one that is watched
    assert drained(manager) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them")
def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reading:
        reading.bind(f"\0oneseek-test-{os.getpid()}")
        reading.settimeout(10)
        ServiceNotifier(f"@oneseek-test-{os.getpid()}").ready("here")
        assert received(reading) == {"READY": "1", "STATUS": "here"}


def test_signs_of_life_are_sent_at_half_the_time_that_is_allowed(manager: socket.socket) -> None:
    now = 0.0
    notifier = ServiceNotifier(str(manager.getsockname()), 10, clock=lambda: now)
    for now in (0.0, 1.0, 4.9, 5.0, 9.9, 10.0):  # noqa: B007 # the clock reads it
        notifier.sign_of_life()
    assert drained(manager) == [b"WATCHDOG=1"] * 3


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_socket_nothing_is_sent(environ: dict[str, str]) -> None:
    notifier = ServiceNotifier.take(environ)
    notifier.ready("here")
    notifier.stopping("draining")


def test_a_manager_that_has_gone_harms_nothing(tmp_path: Path) -> None:
    ServiceNotifier(str(tmp_path / "nobody")).ready("here")

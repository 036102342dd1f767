"""A start that is ended: at once, with exit code 0, and leaving nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from adapters.files.atomic import discard_unfinished, staged_file, staged_folder
from server.__main__ import main
from server.asgi.starting import FORCE_SECONDS, StartGuard
from tests.server.server_process import ServerProcess

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals that a process can be sent")
Serve = Callable[..., ServerProcess]


@posix
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        (r"(base) ", signal.SIGTERM),
        (r"(building) ", signal.SIGINT),
        (r"(adapters): ", signal.SIGTERM),
    ],
)
def test_a_start_that_is_stopped_ends_with_zero(serve: Serve, moment: str, number: signal.Signals) -> None:
    server = serve()
    server.said(moment)
    server.process.send_signal(number)
    started = time.monotonic()
    assert server.process.wait(60) == 0
    # In fact 2 s; the machine may be busy.
    assert time.monotonic() - started < 30
    assert "Traceback" not in server.log.read_text()
    assert not list(server.home.rglob(".*.tmp"))


STUCK = """
import ctypes, subprocess, sys
from pathlib import Path
from adapters.files.atomic import staged_folder
from server.__main__ import main
from server.asgi.starting import StartGuard
with StartGuard(), staged_folder(Path(sys.argv[1]) / "target") as folder:
    (folder / "part").touch()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, flush=True)
    # As code of a library may, it neither returns to the interpreter nor hears of signals.
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    if sys.argv[2] == "stuck":
        libc.pthread_mutex_lock(mutex)
    else:
        libc.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="speaks to the C library")
@pytest.mark.parametrize("how", ["stuck", "slow"])
def test_a_start_that_hangs_in_foreign_code_is_ended_with_its_children(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", STUCK, str(tmp_path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert process.wait(60) == 0
        assert time.monotonic() - started < FORCE_SECONDS + 30
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert not list(tmp_path.iterdir())


@posix
def test_a_stop_before_the_verb_is_known_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("server.__main__.refuse_foreign_names", lambda: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(sys, "argv", ["oneseek", "serve"])
    try:
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_guard_puts_back_what_it_found() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StartGuard() as guard:
        assert signal.getsignal(signal.SIGTERM) == guard.stop
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert not guard.stopped


def test_a_block_that_is_stopped_ends_without_an_error_whatever_it_makes_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()
    monkeypatch.setattr("server.asgi.starting.end_now", ended.set)
    monkeypatch.setattr("server.asgi.starting.kill_children", lambda: None)  # other tests' are among them
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with StartGuard() as guard:
            try:
                signal.raise_signal(signal.SIGTERM)
            except SystemExit as error:
                raise ImportError("as extensions do") from error
        assert guard.stopped
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        # Before the true one is back: a process that does not end by itself is ended.
        ended.wait(60)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.is_set()


def test_what_is_half_written_is_discarded(tmp_path: Path) -> None:
    def write() -> None:
        with staged_folder(tmp_path / "folder") as folder, staged_file(folder / "file") as file:
            file.touch()
            discard_unfinished()
            assert not folder.exists()

    with pytest.raises(FileNotFoundError):
        write()
    assert not list(tmp_path.iterdir())
    with staged_folder(tmp_path / "whole"):
        pass
    discard_unfinished()
    assert (tmp_path / "whole").exists()

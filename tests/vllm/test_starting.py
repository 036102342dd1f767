"""A start on vLLM that is ended: soon, with exit code 0, and without a process or file left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from server.asgi.starting import FORCE_SECONDS
from tests.vllm.test_death import CONFIG

pytestmark = pytest.mark.slow


def is_core(process: psutil.Process) -> bool:
    """Whether it is vLLM's engine core."""
    try:
        return "EngineCore" in " ".join([process.name(), *process.cmdline()])
    except psutil.Error:  # it has just ended
        return False


def wait_for(process: subprocess.Popen[bytes], log: Path, moment: str) -> None:
    """Until the log matches `moment`, or vLLM's core runs where that is `core`."""
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        if moment == "core":
            if any(is_core(child) for child in psutil.Process(process.pid).children(recursive=True)):
                return
        elif re.search(moment, log.read_text()):
            return
        time.sleep(0.02)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize(
    ("moment", "later", "number"),
    [
        (r"engine vllm", 0.0, signal.SIGTERM),
        (r"loading vLLM", 3.0, signal.SIGINT),
        ("core", 0.0, signal.SIGTERM),
        ("core", 2.0, signal.SIGTERM),
    ],
)
def test_a_start_on_vllm_that_is_stopped_ends_with_zero(
    tiny_base: Path, tmp_path: Path, moment: str, later: float, number: signal.Signals
) -> None:
    config, log, home = tmp_path / "oneseek.yaml", tmp_path / "log", tmp_path / "home"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "server", "serve", "--config", str(config), "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--home", str(home), "--base-model", str(tiny_base)],
            stdout=output,
            stderr=output,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    family: list[psutil.Process] = []
    try:
        wait_for(process, log, moment)
        time.sleep(later)
        assert "ready on" not in log.read_text(), "it is still starting"
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        started = time.monotonic()
        assert process.wait(60) == 0, log.read_text()
        # FORCE_SECONDS and a moment; the machine may be busy.
        assert time.monotonic() - started < FORCE_SECONDS + 10
        assert "Traceback" not in log.read_text()
        _, left = psutil.wait_procs(family, timeout=5)
        assert not left
        assert not list(home.rglob(".*.tmp"))
    finally:
        process.kill()
        process.wait()
        for child in family:
            if child.is_running():
                child.kill()

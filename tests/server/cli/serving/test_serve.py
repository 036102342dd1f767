"""`oneseek serve` on Ctrl-C: a word, no traceback, and no error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_stopped(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "server", "serve", "--port", "0", "--threads", "1"]
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("ONESEEK_")}
    surroundings |= {"ONESEEK_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=surroundings, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "ready on" in line:
                process.send_signal(number)
                break
        said = process.stderr.read()
        assert process.wait(60) == 0
    assert said.splitlines()[-1] == "oneseek: stopped"
    assert "Traceback" not in said

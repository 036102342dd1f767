"""`oneseek serve` in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx


def heed_interrupts() -> None:
    """A test run in the background ignores Ctrl-C, and what it starts inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class ServerProcess:
    """A server on `base`, whose home and log are in `folder`."""

    def __init__(self, base: Path, folder: Path, *arguments: str) -> None:
        self.log = folder / "log"
        self.home = folder / "home"
        common = ("--port", "0", "--home", str(self.home), "--threads", "1", "--base-model", str(base))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", "serve", *common, *arguments],
                stdout=log,
                stderr=log,
                preexec_fn=heed_interrupts if sys.platform != "win32" else None,
            )

    def said(self, pattern: str) -> str:
        """What the group in `pattern` matches, once the log has it."""
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found[1]
            time.sleep(0.01)
        raise AssertionError(self.log.read_text())

    def url(self) -> str:
        """Where it answers, once it does."""
        return self.said(r"ready on (\S+)")

    def stream(self, body: dict[str, Any], *signals: signal.Signals) -> list[str]:
        """The lines of a stream during which the server is sent `signals`."""
        with httpx.stream("POST", self.url() + "/v1/completions", json=body, timeout=60) as reply:
            lines = reply.iter_lines()
            next(lines)
            for number in signals:
                self.process.send_signal(number)
                time.sleep(0.2)
            return [line for line in lines if line]

    def end(self) -> None:
        """Kill it if it has not ended."""
        self.process.kill()
        self.process.wait()

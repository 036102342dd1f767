"""Show progress as a line that is rewritten in place on a terminal, and otherwise printed every few
seconds.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from bench.load.records import LoadProgress

EVERY = 5.0
"""Seconds between progress lines if the output is not a terminal."""


@dataclass(slots=True)
class ProgressLine:
    """Shows the progress of a run called `label` with `total` requests. `total` is 0 if the number is not
    known in advance.
    """

    label: str
    total: int = 0
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _began: float = field(default_factory=time.monotonic)
    _shown: float = 0.0
    _width: int = 0

    def show(self, progress: LoadProgress) -> None:
        """Print the progress of the run."""
        now = time.monotonic()
        live = self.stream.isatty()
        if not live and now - self._shown < EVERY:
            return
        self._shown = now
        line = self.text(progress, now - self._began)
        if live:
            self.stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def text(self, progress: LoadProgress, seconds: float) -> str:
        """Return the text of the progress line."""
        of = f"/{self.total}" if self.total else ""
        parts = [f"{self.label}: {progress.ended}{of}", f"{progress.running} running"]
        parts += [f"{progress.cancelled} cancelled"] if progress.cancelled else []
        parts += [f"{progress.failed} FAILED"] if progress.failed else []
        rate = progress.tokens / seconds if seconds > 0 else 0.0
        return ", ".join([*parts, f"{rate:.0f} tokens/s, {seconds:.0f} s"])

    def end(self) -> None:
        """Clear the progress line on a terminal, so that other output can follow."""
        if self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self.stream.flush()

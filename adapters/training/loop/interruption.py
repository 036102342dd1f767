"""Treat Ctrl-C as a request to stop at the next safe point."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Interruption:
    """True if someone asked to stop. A second request ends the process at once."""

    asked: bool = False

    def is_set(self) -> bool:
        """True if someone asked to stop."""
        return self.asked

    @contextmanager
    def listening(self) -> Generator[None]:
        """Treat SIGINT and SIGTERM as a request to stop after the running step."""
        before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, _frame: FrameType | None) -> None:
            self.asked = True
            signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)

        for name in before:
            signal.signal(name, ask)
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

"""Ctrl-C as a wish to stop at the next good moment."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Interruption:
    """Whether someone asked to stop; asked twice, the process ends at once."""

    asked: bool = False

    def is_set(self) -> bool:
        """Whether someone did."""
        return self.asked

    @contextmanager
    def listening(self) -> Generator[None]:
        """Take SIGINT and SIGTERM as a wish to stop after the running step."""
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

"""Let Ctrl-C stop a training run at the next safe point instead of at once."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Interruption:
    """Records whether the user asked to stop the run, in `asked`. The first signal only sets it; a second
    signal ends the process at once.
    """

    asked: bool = False

    def is_set(self) -> bool:
        """True if the user asked to stop the run."""
        return self.asked

    @contextmanager
    def listening(self) -> Generator[None]:
        """Within this context, treat SIGINT and SIGTERM as a request to stop after the present step."""
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

"""Show the progress of a long task: as a bar on a terminal, and as JSON lines anywhere else."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
    """Reports the progress of a long task on `stream`, by default standard error."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._console = Console(file=self._stream) if self._stream.isatty() else None

    def print_event(self, event: str, **values: object) -> None:
        """Print one line with the name of an event and its values."""
        if self._console is not None:
            shown = "  ".join(f"{name} {value}" for name, value in values.items())
            self._console.print(f"[bold]{event}[/bold]  {shown}", highlight=False)
        else:
            line = json.dumps({"event": event, "time": round(time.time(), 1), **values}, ensure_ascii=False)
            print(line, file=self._stream, flush=True)

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Generator[Stage]:
        """Show the progress of a stage of `total` steps while this context is open. `done` steps were
        finished before, in a run that is now resumed.
        """
        if self._console is None:
            yield Stage(self, name, total, self._every)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console) as bar:
            yield Stage(self, name, total, self._every, bar, done)


class Stage:
    """A running stage of a task, such as training, whose progress is shown. Create it with
    `Reporter.stage`.
    """

    def __init__(
        self,
        reporter: Reporter,
        name: str,
        total: int,
        every: float,
        bar: Progress | None = None,
        done: int = 0,
    ) -> None:
        self._reporter, self._name, self._total, self._every = reporter, name, total, every
        self._bar = bar
        self._task = bar.add_task(name, total=total, completed=done) if bar is not None else None
        self._next = 0.0

    def step(self, done: int, **values: float) -> None:
        """Show that `done` steps are finished, together with `values` such as the loss."""
        if self._bar is not None and self._task is not None:
            shown = " ".join(f"{name} {value:.3f}" for name, value in values.items())
            self._bar.update(self._task, completed=done, description=f"{self._name} {shown}")
        elif time.monotonic() >= self._next or done == self._total:
            self._next = time.monotonic() + self._every
            rounded = {name: round(value, 4) for name, value in values.items()}
            self._reporter.print_event("progress", stage=self._name, done=done, of=self._total, **rounded)

"""How many threads to compute with on a CPU: measured, since a core that is busy makes every other one wait.

Each operation ends when its slowest thread does. With a thread for every core, one that shares its core with
another program holds up all of them, so that two threads can take four times as long as one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from adapters.training.loop.progress import Reporter

ROUNDS = 5
SECONDS = 0.12
"""For each number of threads in each round."""
HOPELESS = 0.5
"""A number of threads that does less than this share of the work of the best is not timed again."""
CLOSE = 0.9
"""Fewer threads are taken if they do at least this share of the work of the best."""


_ROWS = 512
"""Most rows of the work that is timed."""


def set_threads(
    asked: int | None, file: Path, *, begun: bool, hidden: int, rows: int, reporter: Reporter
) -> None:
    """Compute with the threads that were `asked` for, else with as many as are quickest now, and say so.

    `file` keeps the number: a run that was `begun` goes on with it, so that it ends with the same values.
    `hidden` is the width of the model, `rows` the tokens that are computed at once.
    """
    most = torch.get_num_threads()
    if asked is not None:
        torch.set_num_threads(asked)
    elif begun and file.is_file():
        torch.set_num_threads(int(file.read_text(encoding="ascii")))
    elif most > 1:
        speeds = measure_threads(hidden, min(rows, _ROWS), most)
        torch.set_num_threads(choose(speeds))
        reporter.print_event("threads", picked=torch.get_num_threads(), of=most, speeds=format_speeds(speeds))
    file.write_text(str(torch.get_num_threads()), encoding="ascii")


def candidates(most: int) -> list[int]:
    """Numbers of threads to try: 1, 2, 4 and so on, one less than all, and all."""
    doubled = [1 << n for n in range(most.bit_length())]
    return sorted({count for count in (*doubled, most - 1, most) if 1 <= count <= most})


def choose(speeds: Mapping[int, Sequence[float]]) -> int:
    """The fewest threads whose median speed is close to the best; `speeds` has each round's."""
    medians = {count: statistics.median(found) for count, found in speeds.items()}
    best = max(medians.values())
    return min(count for count, speed in medians.items() if speed >= CLOSE * best)


def format_speeds(speeds: Mapping[int, Sequence[float]]) -> str:
    """Such as `1: 100%, 2: 24%`: each number of threads beside the best."""
    medians = {count: statistics.median(found) for count, found in speeds.items()}
    best = max(medians.values())
    return ", ".join(f"{count}: {speed / best:.0%}" for count, speed in medians.items())


def measure_threads(
    hidden: int, rows: int, most: int, clock: Callable[[], float] = time.perf_counter
) -> dict[int, list[float]]:
    """Pieces of work a second, for each number of threads, in rounds of all that are not far behind.

    A piece is a small multi-layer perceptron, forward and backward, on `rows` rows of `hidden` values. The
    number of threads is left as it was.
    """
    before = torch.get_num_threads()
    work = _work(hidden, rows)
    speeds: dict[int, list[float]] = {count: [] for count in candidates(most)}
    try:
        for _ in range(ROUNDS):
            best = max((found[-1] for found in speeds.values() if found), default=0.0)
            for count, found in speeds.items():
                if found and found[-1] < best * HOPELESS:
                    continue
                torch.set_num_threads(count)
                work()
                start, done = clock(), 0
                while (spent := clock() - start) < SECONDS:
                    work()
                    done += 1
                found.append(done / spent)
    finally:
        torch.set_num_threads(before)
    return speeds


def _work(hidden: int, rows: int) -> Callable[[], None]:
    """One piece: some small and some larger operations, as a layer has."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, hidden, generator=generator, requires_grad=True)
    up = torch.randn(hidden, 3 * hidden, generator=generator)
    down = torch.randn(3 * hidden, hidden, generator=generator)

    def work() -> None:
        found = values
        for _ in range(2):
            scaled = found * torch.rsqrt(found.pow(2).mean(-1, keepdim=True) + 1e-6)
            found = found + torch.nn.functional.silu(scaled @ up) @ down / (3 * hidden)
        found.sum().backward()
        values.grad = None

    return work

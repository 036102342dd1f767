"""Measure how many CPU threads to use, because one busy core makes all others wait.

Each operation ends when its slowest thread does. With a thread for every core, a thread that shares its core
with another program delays all others. Two threads can then take four times as long as one.
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
"""Seconds to measure each number of threads in each round."""
HOPELESS = 0.5
"""If a number of threads reaches less than this share of the best speed, it is not measured in later rounds.
"""
CLOSE = 0.9
"""The fewest threads are chosen that reach at least this share of the best speed."""


_ROWS = 512
"""Maximum number of rows in the timed work."""


def set_threads(
    asked: int | None, file: Path, *, begun: bool, hidden: int, rows: int, reporter: Reporter
) -> None:
    """Set the number of threads: `asked` if given, else the fastest one now. Report which was chosen.

    `file` stores the number. A run that was `begun` continues with it, so that it ends with the same values.
    `hidden` is the width of the model; `rows` is the number of tokens computed at once.
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
    """Return the numbers of threads to try: 1, 2, 4 and so on, all but one, and all."""
    doubled = [1 << n for n in range(most.bit_length())]
    return sorted({count for count in (*doubled, most - 1, most) if 1 <= count <= most})


def choose(speeds: Mapping[int, Sequence[float]]) -> int:
    """Return the fewest threads whose median speed is close to the best. `speeds` has the speeds of each
    round.
    """
    medians = {count: statistics.median(found) for count, found in speeds.items()}
    best = max(medians.values())
    return min(count for count, speed in medians.items() if speed >= CLOSE * best)


def format_speeds(speeds: Mapping[int, Sequence[float]]) -> str:
    """Format speeds relative to the best, such as `1: 100%, 2: 24%`."""
    medians = {count: statistics.median(found) for count, found in speeds.items()}
    best = max(medians.values())
    return ", ".join(f"{count}: {speed / best:.0%}" for count, speed in medians.items())


def measure_threads(
    hidden: int, rows: int, most: int, clock: Callable[[], float] = time.perf_counter
) -> dict[int, list[float]]:
    """Measure pieces of work per second for each number of threads, in several rounds; drop those far behind.

    One piece is a small multi-layer perceptron, forward and backward, on `rows` rows of `hidden` values. The
    number of threads is restored afterwards.
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
    """Do one piece of work: small and larger operations, as in a layer."""
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

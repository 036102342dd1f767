"""Measure which number of CPU threads is fastest at present, because a thread on a busy core delays all
others.

Each operation ends when its slowest thread does. With a thread for every core, a single core that another
program uses too holds up all threads. Two threads can then take four times as long as one.
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
"""Seconds for which each number of threads is measured in a round."""
HOPELESS = 0.5
"""A number of threads that reaches less than this fraction of the best speed is not measured in
later rounds.
"""
CLOSE = 0.9
"""The smallest number of threads that reaches at least this fraction of the best speed is chosen."""


_ROWS = 512
"""Maximum number of rows of the matrix in the measured computation."""


def set_threads(
    asked: int | None, file: Path, *, begun: bool, hidden: int, rows: int, reporter: Reporter
) -> None:
    """Set the number of CPU threads: `asked` if given, otherwise the number that is fastest now, and report
    the choice.

    The number is stored in `file`. If `begun` is True, the run is being continued, and it uses the stored
    number again, so that its results stay bit-identical. `hidden` is the model's hidden size; `rows` is the
    number of tokens computed at once.
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
    """Return the numbers of threads to measure: the powers of two up to `most`, `most` - 1, and `most`."""
    doubled = [1 << n for n in range(most.bit_length())]
    return sorted({count for count in (*doubled, most - 1, most) if 1 <= count <= most})


def choose(speeds: Mapping[int, Sequence[float]]) -> int:
    """Return the smallest number of threads whose median speed is close to the best. `speeds` maps a number
    of threads to its speed in each round.
    """
    medians = {count: statistics.median(found) for count, found in speeds.items()}
    best = max(medians.values())
    return min(count for count, speed in medians.items() if speed >= CLOSE * best)


def format_speeds(speeds: Mapping[int, Sequence[float]]) -> str:
    """Format the median speed of each number of threads relative to the best, such as `1: 100%, 2: 24%`."""
    medians = {count: statistics.median(found) for count, found in speeds.items()}
    best = max(medians.values())
    return ", ".join(f"{count}: {speed / best:.0%}" for count, speed in medians.items())


def measure_threads(
    hidden: int, rows: int, most: int, clock: Callable[[], float] = time.perf_counter
) -> dict[int, list[float]]:
    """Measure the speed of each number of threads, as computations per second, in several rounds. Numbers
    that are far slower than the best are not measured again.

    One computation is the forward and backward pass of a small multi-layer perceptron on `rows` rows of
    `hidden` values. Afterwards the number of threads is what it was before.
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
    """Return a function that runs one computation to measure: small and large operations, as in a transformer
    layer.
    """
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

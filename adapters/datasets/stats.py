"""Measure the lengths of the examples in a data set, and count the languages of their answers."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters.datasets.check import TOLD_BY, Detect
from adapters.datasets.example import Example, ExampleError, read_example
from adapters.datasets.lines import iterate_lines

CountTokens = Callable[[Example], int]
"""A function that returns the number of tokens of an example, in the format in which it is trained on."""
UNDECIDED = "undecided"

_BINS = 12
_NICE = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a histogram of lengths. `count` lengths are at least `low` and less than `high`."""

    low: int
    high: int
    count: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Statistics of the lengths of examples in characters, tokens or messages, with a histogram."""

    smallest: int
    median: float
    p95: float
    largest: int
    mean: float
    total: int
    bins: tuple[Bin, ...]
    """Histogram bars of equal width. If the maximum is more than twice the 99th percentile, the last bar also
    holds all longer lengths.
    """

    @classmethod
    def of(cls, values: Sequence[int]) -> Lengths | None:
        """Compute the statistics of the lengths `values`. Return None if there are no values."""
        if not len(values):
            return None
        numbers = np.asarray(values, np.int64)
        median, p95, p99 = (float(found) for found in np.percentile(numbers, (50, 95, 99)))
        low, largest = int(numbers.min()), int(numbers.max())
        shown = largest if largest <= 2 * p99 else int(p99)
        width = _nice(max(1, -(-(shown - low + 1) // _BINS)))
        start = low // width * width
        edges = [*range(start, shown + width, width)]
        if len(edges) < 2:
            edges = [start, start + width]
        counts = np.histogram(np.minimum(numbers, edges[-1] - 1), edges)[0]
        highs = [*edges[1:-1], max(edges[-1], largest + 1)]
        bins = tuple(
            Bin(low, high, int(count)) for low, high, count in zip(edges[:-1], highs, counts, strict=True)
        )
        total = int(numbers.sum())
        return cls(low, median, p95, largest, total / len(numbers), total, bins)


@dataclass(frozen=True, slots=True)
class Stats:
    """Statistics of a data set, as `measure_dataset` returns them."""

    path: Path
    bytes: int
    examples: int
    broken: int
    """Number of lines that are not valid examples. `oneseek data check` shows why."""
    lengths: Mapping[str, Lengths]
    """Maps what is measured to its lengths. The keys are `messages`, `prompt characters`, `answer
    characters`, and `tokens` if tokens were counted.
    """
    languages: Mapping[str, int]
    """Maps each language to the number of examples with answers in it, most frequent first. Answers in no
    clear language count under the key `undecided`.
    """


def measure_dataset(
    path: Path,
    *,
    detect: Detect | None = None,
    count: CountTokens | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Stats:
    """Read the data set `path` once and return its statistics, using about 16 bytes of memory for each
    example.

    `progress` is called with the number of bytes read so far. Raises `OSError`, and any error that `count`
    raises.
    """
    names = ("messages", "prompt characters", "answer characters", *(("tokens",) if count else ()))
    columns = {name: array("I") for name in names}
    languages: Counter[str] = Counter()
    broken = 0
    for line in iterate_lines(path):
        progress(line.end)
        try:
            example = read_example(line.data or b"", path)
        except ExampleError:
            broken += 1
            continue
        columns["messages"].append(len(example.messages))
        columns["prompt characters"].append(len(example.prompt))
        columns["answer characters"].append(len(example.answer))
        if count is not None:
            columns["tokens"].append(count(example))
        if detect is not None:
            languages[detect(example.answer[:TOLD_BY]) or UNDECIDED] += 1
    found = {name: Lengths.of(values) for name, values in columns.items()}
    return Stats(
        path=path,
        bytes=path.stat().st_size,
        examples=len(columns["messages"]),
        broken=broken,
        lengths={name: lengths for name, lengths in found.items() if lengths is not None},
        languages=dict(languages.most_common()),
    )


def _nice(width: int) -> int:
    """Return the smallest number of the series 1, 2, 5, 10, 20, 50, 100… that is at least `width`."""
    power = 1
    while True:
        for digit in _NICE:
            if digit * power >= width:
                return digit * power
        power *= 10

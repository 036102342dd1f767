"""How long the examples of a data set are, and which languages they are in."""

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
"""Example → its tokens, as it is trained on."""
UNDECIDED = "undecided"

_BINS = 12
_NICE = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Bin:
    """Lengths from `low` up to, not including, `high`."""

    low: int
    high: int
    count: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths in characters, tokens or messages."""

    smallest: int
    median: float
    p95: float
    largest: int
    mean: float
    total: int
    bins: tuple[Bin, ...]
    """Of equal width. The last also holds what is beyond the 99th percentile, where that is far off."""

    @classmethod
    def of(cls, values: Sequence[int]) -> Lengths | None:
        """Of at least one length; None of none."""
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
    """What `measure_dataset` found."""

    path: Path
    bytes: int
    examples: int
    broken: int
    """Lines that are no example; `oneseek data check` says why."""
    lengths: Mapping[str, Lengths]
    """`messages`, `prompt characters`, `answer characters`, and `tokens` where they were counted."""
    languages: Mapping[str, int]
    """Language of the answers → examples, most first; what is not decided counts as `UNDECIDED`."""


def measure_dataset(
    path: Path,
    *,
    detect: Detect | None = None,
    count: CountTokens | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Stats:
    """Read `path` once; memory is about 16 bytes for each example. Raises `OSError`, and what `count` does.

    `progress` is told the bytes that have been read.
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
    """The least of 1, 2, 5, 10, 20, 50… that is not below `width`."""
    power = 1
    while True:
        for digit in _NICE:
            if digit * power >= width:
                return digit * power
        power *= 10

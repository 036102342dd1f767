"""The list of figures that `oneseek bench compare` and `oneseek bench tax` compare, and for which of them a
higher value is better.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.figures.intervals import Better, RatioInterval, ratio_interval

COMPARED: Mapping[str, tuple[tuple[str, ...], Better]] = {
    "tokens_per_second": (("output_tokens_per_second",), "higher"),
    "words_per_second": (("words_per_second",), "higher"),
    "goodput_per_second": (("goodput_per_second",), "higher"),
    "ttft_mean_ms": (("ttft_ms", "mean"), "lower"),
    "ttft_p50_ms": (("ttft_ms", "p50"), "lower"),
    "ttft_p95_ms": (("ttft_ms", "p95"), "lower"),
    "ttft_p99_ms": (("ttft_ms", "p99"), "lower"),
    "itl_mean_ms": (("itl_ms", "mean"), "lower"),
    "itl_p50_ms": (("itl_ms", "p50"), "lower"),
    "itl_p95_ms": (("itl_ms", "p95"), "lower"),
    "itl_p99_ms": (("itl_ms", "p99"), "lower"),
    "e2e_p50_ms": (("e2e_ms", "p50"), "lower"),
}
"""Maps each figure's name to its path below `figures.total` in a report, and to `higher` or `lower`,
whichever is better.
"""

RoundFigures = Mapping[str, float]


def round_figures(total: Mapping[str, Any]) -> RoundFigures:
    """Return the figures of one run that `COMPARED` lists, from `total`, the object `figures.total` of its
    report. Figures without a value are left out.
    """
    found: dict[str, float] = {}
    for name, (path, _) in COMPARED.items():
        value: Any = total
        for key in path:
            value = value.get(key) if value is not None else None
        if value is not None:
            found[name] = float(value)
    return found


def median_of(rounds: Sequence[RoundFigures], name: str) -> float | None:
    """Return the median of the figure `name` over all rounds. None if a round lacks the figure."""
    values = [figures[name] for figures in rounds if name in figures]
    return round(statistics.median(values), 4) if values and len(values) == len(rounds) else None


def compare(a: Sequence[RoundFigures], b: Sequence[RoundFigures], paired: bool) -> dict[str, RatioInterval]:
    """Return the ratio of server B's figure to server A's, for every figure that is above 0 in all rounds of
    both. `paired` is true if A and B were measured in turn.
    """
    every = [*a, *b]
    names = [name for name in COMPARED if all(figures.get(name, 0) > 0 for figures in every)]
    return {
        name: ratio_interval([one[name] for one in a], [one[name] for one in b], paired) for name in names
    }

"""What a closed-loop run says once it is under way: the ramp at its start and the drain at its end left out.

The window opens when as many requests have ended as there are streams, so that on average every stream has
been through one, and closes when the last request is sent, after which streams fall idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.load.closed_loop import Trace

LEAST_ROUNDS = 3
"""Requests for each stream below which there is no window: one to open it, one inside, one to drain."""
LEAST_GAPS = 20
"""Fewer undisturbed gaps than this say nothing about a decode step."""
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SteadyFigures:
    """Figures of the window; times in seconds."""

    seconds: float
    tokens: float
    """Tokens that came in the window. An answer's tokens are spread evenly over its events."""
    first: Float64Array
    """Time to first token of the requests that were first answered in the window."""
    gaps: Float64Array
    """Between successive arrivals of one stream: what a reader sees."""
    decode_step: float | None
    """Median time for a token while every stream decodes and none waits for its first; `None` where that
    was too rare to tell."""

    @property
    def tokens_per_second(self) -> float:
        """Output tokens per second."""
        return self.tokens / self.seconds


def steady(traces: Sequence[Trace], streams: int) -> SteadyFigures | None:
    """The window of a run of `streams` streams; `None` where the run was too short or too broken for one."""
    whole = [trace for trace in traces if trace.arrivals and trace.tokens]
    if len(whole) < LEAST_ROUNDS * streams:
        return None
    opens = sorted(trace.arrivals[-1] for trace in whole)[streams - 1]
    closes = max(trace.sent for trace in whole)
    if closes <= opens:
        return None
    waits = _union([(trace.sent, trace.arrivals[0]) for trace in whole])
    tokens = 0.0
    first: list[float] = []
    gaps: list[Float64Array] = []
    steps: list[Float64Array] = []
    for trace in whole:
        times, events = np.array(trace.arrivals), np.array(trace.events)
        inside = (times > opens) & (times <= closes)
        tokens += trace.tokens * float(events[inside].sum()) / float(events.sum())
        if inside[0]:
            first.append(trace.arrivals[0] - trace.sent)
        gap = np.diff(times)
        gaps.append(gap[inside[1:]])
        alone = inside[1:] & _clear(times[:-1], times[1:], waits)
        steps.append(gap[alone] / events[1:][alone])
    every_step = np.concatenate(steps)
    step = float(np.median(every_step)) if len(every_step) >= LEAST_GAPS else None
    return SteadyFigures(closes - opens, tokens, np.array(first), np.concatenate(gaps), step)


def _union(spans: Sequence[tuple[float, float]]) -> Float64Array:
    """The spans merged where they overlap, as rows of (begin, end) in order."""
    merged: list[list[float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return np.array(merged)


def _clear(begins: Float64Array, ends: Float64Array, spans: Float64Array) -> NDArray[np.bool_]:
    """Which of the intervals touch none of the `spans`."""
    following = np.searchsorted(spans[:, 1], begins, side="left")
    reach = np.append(spans[:, 0], np.inf)
    return ends <= reach[following]

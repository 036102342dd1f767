"""Compute the figures of the steady state of a closed-loop run, without its beginning and its end.

The steady state begins when as many requests have ended as there are streams, so that on average each stream
has finished one request. It ends when the last request is sent, because from then on streams have nothing
more to send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.load.closed_loop import Trace

LEAST_ROUNDS = 3
"""Minimum number of requests per stream for a steady state: one before it, one in it, and one after it."""
LEAST_GAPS = 20
"""Minimum number of gaps between tokens, with no prefill running, from which the time of a decode step is
computed.
"""
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SteadyFigures:
    """Figures of the steady state. Times are in seconds."""

    seconds: float
    tokens: float
    """Number of tokens that arrived in the steady state. The tokens of an answer are assumed to be spread
    evenly over its events.
    """
    first: Float64Array
    """TTFT of the requests whose first token arrived in the steady state."""
    gaps: Float64Array
    """Seconds between successive chunks of the same answer."""
    decode_step: float | None
    """Median seconds per token while no request waits for its first token, so that every stream decodes. None
    if there were too few such times.
    """

    @property
    def tokens_per_second(self) -> float:
        """Output tokens per second in the steady state."""
        return self.tokens / self.seconds


def steady(traces: Sequence[Trace], streams: int) -> SteadyFigures | None:
    """Return the figures of the steady state of a run with `streams` streams. None if too few requests were
    answered.
    """
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
    """Merge spans of time that overlap. Return an array of (begin, end) pairs in order."""
    merged: list[list[float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return np.array(merged)


def _clear(begins: Float64Array, ends: Float64Array, spans: Float64Array) -> NDArray[np.bool_]:
    """Return a mask that is true for each interval from `begins` to `ends` that overlaps none of the
    `spans`.
    """
    following = np.searchsorted(spans[:, 1], begins, side="left")
    reach = np.append(spans[:, 0], np.inf)
    return ends <= reach[following]

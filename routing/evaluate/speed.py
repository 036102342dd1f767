"""Measure how much CPU time this router takes for one message, and how much langdetect takes for it in
the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from routing.evaluate.judge import RoutedText

MOST = 300
"""Maximum number of texts that are timed with langdetect, which takes milliseconds for each."""


def percentiles(judged: Sequence[RoutedText]) -> dict[str, float]:
    """Return the median (p50) and p99 of the routing times in CPU milliseconds."""
    return _named(np.array([j.seconds for j in judged]))


def langdetect_percentiles(judged: Sequence[RoutedText]) -> dict[str, float]:
    """Return the median (p50) and p99 of langdetect's times in CPU milliseconds, on up to 300 of these
    texts.
    """
    from langdetect import detect_langs  # pyright: ignore[reportUnknownVariableType] (it has no types)
    from langdetect.lang_detect_exception import LangDetectException

    read: Callable[[str], object] = detect_langs
    seconds: list[float] = []
    for j in judged[:: max(1, len(judged) // MOST)]:
        started = time.thread_time()
        try:
            read(j.labelled.text)
        except LangDetectException:
            continue
        seconds.append(time.thread_time() - started)
    return _named(np.array(seconds[1:]))


def _named(seconds: np.ndarray) -> dict[str, float]:
    return {
        f"p{percentile}_ms": round(float(np.percentile(seconds * 1000, percentile)), 4)
        for percentile in (50, 99)
    }

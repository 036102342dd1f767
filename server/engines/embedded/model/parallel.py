"""Work on arrays spread over the cores; NumPy lets other threads run while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVarTuple

ArgumentTypes = TypeVarTuple("ArgumentTypes")
MOST = 8
"""Threads beyond which memory, not arithmetic, is the limit."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parallel(function: Callable[[*ArgumentTypes], None], calls: Iterable[tuple[*ArgumentTypes]]) -> None:
    """Make every call, several at once, and raise what any of them raised."""
    with ThreadPoolExecutor(min(cores(), MOST)) as pool:
        for call in [pool.submit(function, *given) for given in calls]:
            call.result()

"""Runs a function on NumPy arrays in several threads at once. NumPy releases the GIL while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVarTuple

ArgumentTypes = TypeVarTuple("ArgumentTypes")
MOST = 8
"""Maximum number of threads. More would not help, since memory bandwidth is the limit."""


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parallel(function: Callable[[*ArgumentTypes], None], calls: Iterable[tuple[*ArgumentTypes]]) -> None:
    """Call `function` once for each tuple of arguments, in several threads. Raises the first error."""
    with ThreadPoolExecutor(min(cores(), MOST)) as pool:
        for call in [pool.submit(function, *given) for given in calls]:
            call.result()

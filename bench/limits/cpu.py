"""Measure the CPU of this machine as a device: its memory bandwidth and arithmetic rate, which no datasheet
states.

Bandwidth is that of reading, which a decode step does. The arithmetic rate is that of a float32 matrix
product. A server that computes prompts in bfloat16 or 8 bits on a CPU with AMX or VNNI can exceed it.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil

from bench.limits.devices import GpuSpec

READ_BYTES = 256 << 20
"""Bytes that each thread reads to measure the bandwidth. Far more than a CPU cache holds."""
MATRIX = 1024
REPEATS = 5


@functools.cache
def measure_cpu() -> GpuSpec:
    """Measure this CPU on every available core, which takes about a second. Later calls in this process
    return the same result.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory().total / 1e9
    source = f"measured: best of {REPEATS}, {threads} threads, load {psutil.getloadavg()[0]:.1f}"
    return GpuSpec("local CPU", "", read_bandwidth(threads) / 1e9, multiply() / 1e12, memory, source)


def read_bandwidth(threads: int, size: int = READ_BYTES) -> float:
    """Return the bytes per second that `threads` threads read in total, while each searches a long array for
    its maximum.
    """
    part = np.zeros(size // 8, dtype=np.int64)
    parts = [part, *(part.copy() for _ in range(threads - 1))]
    with ThreadPoolExecutor(threads) as pool:
        return threads * part.nbytes / _best(lambda: list(pool.map(np.max, parts)))


def multiply(size: int = MATRIX) -> float:
    """Return the operations per second of a square float32 matrix product, on the threads that NumPy uses."""
    matrix = np.ones((size, size), dtype=np.float32)
    return 2 * size**3 / _best(lambda: matrix @ matrix)


def _best(work: Callable[[], object]) -> float:
    found: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)

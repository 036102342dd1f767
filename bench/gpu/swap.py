"""Exchange an adapter for another version under load, over HTTP, and measure what the clients notice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from bench.load.closed_loop import LoadResult

AFTERMATH = 1.0
"""A gap in a stream counts as caused by the adapter's exchange if it is at most this many seconds later."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Times at which the exchange was requested and answered, by `time.perf_counter`. `fault` is set if it
    failed.
    """

    began: float
    ended: float
    fault: str | None = None

    def figures(self, outcome: LoadResult) -> dict[str, Any]:
        """Seconds of the exchange, and the longest gap between two tokens of a stream during it and apart
        from it, in milliseconds."""
        during, apart = 0.0, 0.0
        for trace in outcome.traces:
            for before, after in pairwise(trace.arrivals):
                if after >= self.began and before <= self.ended + AFTERMATH:
                    during = max(during, after - before)
                else:
                    apart = max(apart, after - before)
        return {
            "seconds": round(self.ended - self.began, 3),
            "fault": self.fault,
            "longest_gap_ms": round(during * 1e3, 2),
            "longest_gap_without_ms": round(apart * 1e3, 2),
        }


async def timed_swap(url: str, name: str, folder: Path, key: str) -> Swap:
    """Call `swap_adapter` and measure its time. If the server refuses, the result has the reason as its
    fault.
    """
    began, fault = time.perf_counter(), None
    try:
        await swap_adapter(url, name, folder, key)
    except (RuntimeError, aiohttp.ClientError, TimeoutError) as error:
        fault = str(error)[:500]
    return Swap(began, time.perf_counter(), fault)


async def swap_adapter(url: str, name: str, folder: Path, key: str) -> None:
    """Load the adapter in `folder` under `name`, replacing the adapter of that name. Raises `RuntimeError` if
    the server refuses.
    """
    body = {"lora_name": name, "lora_path": str(folder), "load_inplace": True}
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/v1/load_lora_adapter", json=body, headers=headers) as response,
    ):
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {(await response.text())[:500]}")

"""Exchange an adapter for another version while requests run, over HTTP, and measure how long clients wait
for it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from bench.load.closed_loop import LoadResult

AFTERMATH = 1.0
"""Seconds after an adapter's exchange during which a gap in a stream still counts as caused by it."""


@dataclass(frozen=True, slots=True)
class Swap:
    """When an adapter's exchange was requested and answered, in seconds of `time.perf_counter`. `fault` is
    the reason if it failed.
    """

    began: float
    ended: float
    fault: str | None = None

    def figures(self, outcome: LoadResult) -> dict[str, Any]:
        """Return the seconds of the exchange. Also return, in milliseconds, the longest gap between two
        tokens of a stream around the exchange, and the longest gap at any other time.
        """
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
    """Exchange the adapter with `swap_adapter` and measure the time. If the exchange fails, the reason is in
    `fault`.
    """
    began, fault = time.perf_counter(), None
    try:
        await swap_adapter(url, name, folder, key)
    except (RuntimeError, aiohttp.ClientError, TimeoutError) as error:
        fault = str(error)[:500]
    return Swap(began, time.perf_counter(), fault)


async def swap_adapter(url: str, name: str, folder: Path, key: str) -> None:
    """Load the adapter in `folder` under `name`, in place of the adapter that has this name. Raises
    `RuntimeError` if the server refuses.
    """
    body = {"lora_name": name, "lora_path": str(folder), "load_inplace": True}
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/v1/load_lora_adapter", json=body, headers=headers) as response,
    ):
        if response.status != 200:
            raise RuntimeError(
                f"the server did not load the adapter {name} (status {response.status}): "
                f"{(await response.text())[:500]}"
            )

"""One adapter exchanged for another version under load, over HTTP, and what the clients saw of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from bench.load.closed_loop import LoadResult

AFTERMATH = 1.0
"""Seconds after the exchange in which a gap still counts as its doing."""


@dataclass(frozen=True, slots=True)
class Swap:
    """When the exchange was asked for and answered, by `time.perf_counter`; `fault` if it failed."""

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
    """`swap_adapter`, and how long it took; a refusal is kept as the swap's fault."""
    began, fault = time.perf_counter(), None
    try:
        await swap_adapter(url, name, folder, key)
    except (RuntimeError, aiohttp.ClientError, TimeoutError) as error:
        fault = str(error)[:500]
    return Swap(began, time.perf_counter(), fault)


async def swap_adapter(url: str, name: str, folder: Path, key: str) -> None:
    """Load the adapter in `folder` under `name`, in place of what has that name.

    Raises `RuntimeError` if the server refuses it.
    """
    body = {"lora_name": name, "lora_path": str(folder), "load_inplace": True}
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/v1/load_lora_adapter", json=body, headers=headers) as response,
    ):
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {(await response.text())[:500]}")

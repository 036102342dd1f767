"""Record the sizes of the batch and the queue during a run, from the server's gauges."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from bench.target.http import Endpoint, TargetError
from bench.target.metrics import gauges
from bench.target.probe import ServerKind

EVERY = 0.5
"""Seconds between two samples of the server's metrics."""


@dataclass(frozen=True, slots=True)
class BatchSample:
    """One sample of the server's gauges."""

    at: float
    """Time of the sample, in seconds after the sampling began."""
    running: float
    waiting: float


@dataclass(slots=True)
class BatchSampler:
    """Reads the gauges until it is cancelled. A failed reading is left out."""

    endpoint: Endpoint
    kind: ServerKind
    samples: list[BatchSample] = field(default_factory=list[BatchSample])

    async def run(self) -> None:
        """Take samples until cancelled. Returns at once if the server has no such gauges."""
        began = time.monotonic()
        while True:
            try:
                found = await asyncio.to_thread(gauges, self.endpoint, self.kind)
            except TargetError:
                found = (float("nan"), float("nan"))
            if found is None:
                return
            if found[0] == found[0]:
                self.samples.append(BatchSample(round(time.monotonic() - began, 3), *found))
            await asyncio.sleep(EVERY)

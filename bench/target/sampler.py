"""Record how many requests run and how many wait on the server during a run, from its metrics."""

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
    """The number of running and waiting requests on the server at one time."""

    at: float
    """Time of the sample, in seconds after the first sample."""
    running: float
    waiting: float


@dataclass(slots=True)
class BatchSampler:
    """Records the number of running and waiting requests on a server at intervals. Failed readings are
    skipped.
    """

    endpoint: Endpoint
    kind: ServerKind
    samples: list[BatchSample] = field(default_factory=list[BatchSample])

    async def run(self) -> None:
        """Take samples until this task is cancelled. Return at once if the server has no metrics for running
        and waiting requests.
        """
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

"""A closed-loop load generator with N streams, each of which sends its next request when its last one has
ended.

It counts statuses and tokens and checks every answer, so that fast errors are not mistaken for high speed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A streamed request, and the number of tokens that its answer must have."""

    path: str
    body: dict[str, Any]
    tokens: int
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Trace:
    """When the chunks of an answer arrived, in seconds of `time.perf_counter`."""

    sent: float
    arrivals: list[float] = field(default_factory=list[float])
    """Arrival time of each chunk of the answer that has tokens."""
    events: list[int] = field(default_factory=list[int])
    """Number of server-sent events with tokens in each chunk of `arrivals`."""
    tokens: int = 0
    """Number of completion tokens that the server reported."""

    @property
    def gaps(self) -> list[float]:
        """Seconds between successive chunks of the answer."""
        return [after - before for before, after in itertools.pairwise(self.arrivals)]


@dataclass(slots=True)
class LoadResult:
    """Results of a closed-loop run. Times are in seconds."""

    seconds: float = 0.0
    traces: list[Trace] = field(default_factory=list[Trace])
    """The answers of all requests, in the order in which they ended."""
    statuses: Counter[int] = field(default_factory=Counter[int])
    faults: list[str] = field(default_factory=list[str])
    """An error message for each failed request: the error, or how the answer differs from what the request
    demands.
    """
    event_loop_seconds: float = 0.0
    """CPU seconds that the server's HTTP thread used during the run."""

    @property
    def tokens(self) -> int:
        """Number of completion tokens in all answers."""
        return sum(trace.tokens for trace in self.traces)

    @property
    def first(self) -> list[float]:
        """Seconds from sending to the first token, for each answer."""
        return [trace.arrivals[0] - trace.sent for trace in self.traces if trace.arrivals]

    @property
    def gaps(self) -> list[float]:
        """Seconds between successive chunks of the same answer, for all answers."""
        return [gap for trace in self.traces for gap in trace.gaps]

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens of all answers, divided by the duration of the run."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def summary(self) -> dict[str, float]:
        """Return throughput, and percentiles of TTFT and inter-token latency in milliseconds."""

        def percentile(values: list[float], q: float) -> float:
            return round(float(np.percentile(values, q)) * 1e3, 2) if values else float("nan")

        return {
            "tokens_per_second": round(self.tokens_per_second, 1),
            "ttft_p50_ms": percentile(self.first, 50),
            "ttft_p99_ms": percentile(self.first, 99),
            "itl_p50_ms": percentile(self.gaps, 50),
            "itl_p99_ms": percentile(self.gaps, 99),
            "event_loop_us_per_token": round(self.event_loop_seconds / max(1, self.tokens) * 1e6, 1),
            "requests": sum(self.statuses.values()),
        }


async def _one(session: aiohttp.ClientSession, url: str, job: LoadRequest, outcome: LoadResult) -> None:
    body = job.body | {"stream": True, "stream_options": {"include_usage": True}}
    trace = Trace(time.perf_counter())
    tail = b""
    try:
        async with session.post(url + job.path, json=body, headers=job.headers) as response:
            outcome.statuses[response.status] += 1
            if response.status != 200:
                outcome.faults.append((await response.text())[:200])
                return
            async for chunk in response.content.iter_any():
                events = chunk.count(b"data: {") - chunk.count(b'"choices":[]')  # the usage is no token
                if events > 0:
                    trace.arrivals.append(time.perf_counter())
                    trace.events.append(events)
                tail = (tail + chunk)[-4096:]
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome.faults.append(f"{type(error).__name__}: {error}"[:200])
        return
    trace.tokens = _usage(tail)
    outcome.traces.append(trace)
    if trace.tokens != job.tokens or not tail.rstrip().endswith(b"[DONE]"):
        outcome.faults.append(
            f"the answer has {trace.tokens} tokens instead of {job.tokens}; its end: {tail[-120:]!r}"
        )


def _usage(tail: bytes) -> int:
    for line in reversed(tail.split(b"\n")):
        if line.startswith(b"data: {") and b'"usage":{' in line.replace(b'"usage": {', b'"usage":{'):
            return int(json.loads(line[6:])["usage"]["completion_tokens"])
    return 0


async def closed_loop(
    url: str,
    jobs: Sequence[LoadRequest],
    streams: int,
    timeout: float = 600,
    halfway: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> LoadResult:
    """Send all `jobs` over `streams` concurrent streams to the server at `url`, and return the results.

    An answer that takes longer than `timeout` seconds counts as a fault. `halfway` is called once, while
    requests run, when half of the jobs have been sent.
    """
    outcome = LoadResult()
    queue = list(reversed(jobs))
    connector = aiohttp.TCPConnector(limit=0)
    limit = aiohttp.ClientTimeout(total=timeout)
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
        beside: list[asyncio.Task[None]] = []

        async def worker() -> None:
            while queue:
                job = queue.pop()
                if halfway is not None and not beside and len(queue) <= len(jobs) // 2:
                    beside.append(asyncio.create_task(halfway()))
                await _one(session, url, job, outcome)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(streams)))
        outcome.seconds = time.perf_counter() - began
        await asyncio.gather(*beside)
    return outcome

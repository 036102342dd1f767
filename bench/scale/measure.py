"""Measure the step times of running servers, and compare runs on real servers with their simulation."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from bench.load.arrivals import arrival_times
from bench.load.drive import LoadMode, drive
from bench.load.records import PlannedRequest, RequestRecord
from bench.scale.replica import ReplicaLimits
from bench.scale.simulate import FleetFigures, FleetPlan, simulate
from bench.scale.times import StepTimes, fit
from bench.scale.workload import FleetRequest
from bench.scenarios.plan import Planner, PlanOptions
from bench.scenarios.scenario import ServingScenario
from bench.suite.measure import LoadShape, MeasureOptions, measure
from bench.target.http import TargetError
from bench.target.probe import TargetServer
from bench.text.prompts import LengthSpread

STREAMS = (1, 2, 4, 8, 16)
SINGLES = 24
"""Number of requests, sent one after another, from which TTFT is fitted as a line over the number of prompt
tokens.
"""
PROMPTS = LengthSpread(median=40, sigma=0.8, least=8, most=160)
"""Number of words in the prompts. It varies widely, so that the line fitted to TTFT is accurate."""
WAVE = LengthSpread(median=48, sigma=0, least=48, most=48)
"""Answer tokens of requests that start and end together, so that each step decodes a known number of
sequences.
"""
SCENARIO = ServingScenario("scale", "both languages, for step times")
CHECKED = (1, 2)
"""Numbers of replicas for which the simulation is compared with real servers."""
LOADS = (0.5, 0.8)
TOLERANCE = 0.15


async def measure_times(
    targets: Sequence[TargetServer], limits: ReplicaLimits, seed: int = 0, load: float = 0.0
) -> StepTimes:
    """Measure the step times of equal servers, all at the same time. Raises `TargetError` if a
    request fails.
    """
    decode: dict[int, float] = {}
    first: list[tuple[int, float]] = []
    for streams in (count for count in STREAMS if count <= limits.max_num_seqs):
        count = SINGLES if streams == 1 else streams
        runs = await _together(targets, LoadShape(users=streams, requests=count), seed * 100 + streams, WAVE)
        times = [seconds for run in runs for seconds in (decode_gaps(run) if streams > 1 else _gaps(run))]
        decode[streams] = statistics.fmean(times)
        if streams == 1:
            first = [
                (one.prompt_tokens - one.cached_tokens, one.ttft) for run in runs for one in run if one.ttft
            ]
    return fit(decode, first, load)


async def measure_capacity(targets: Sequence[TargetServer], limits: ReplicaLimits, seed: int) -> float:
    """Return the capacity of a replica: the requests per second that it completes when its batch is always
    full.
    """
    streams = limits.max_num_seqs
    runs = await _together(targets, LoadShape(users=streams, requests=4 * streams), seed)
    return statistics.fmean(
        len(run) / (max(one.end for one in run) - min(one.intended for one in run)) for run in runs
    )


async def _together(
    targets: Sequence[TargetServer], shape: LoadShape, seed: int, answer: LengthSpread | None = None
) -> list[tuple[RequestRecord, ...]]:
    options = [
        MeasureOptions(plan=PlanOptions(seed=seed * 10 + number, ask="names", prompt=PROMPTS, answer=answer))
        for number in range(len(targets))
    ]
    results = await asyncio.gather(
        *(measure(target, SCENARIO, shape, own) for target, own in zip(targets, options, strict=True))
    )
    for target, result in zip(targets, results, strict=True):
        if result.figures.total.failed:
            raise TargetError(
                f"measuring {target.url} failed: {next(iter(result.figures.faults), 'a request failed')}"
            )
    return [result.run.records for result in results]


def decode_gaps(records: Sequence[RequestRecord]) -> list[float]:
    """Return the seconds per token while all of `records` decode: after the last of them has its first token,
    and before the first of them ends.
    """
    since = max(record.arrivals[0] for record in records)
    until = min(record.arrivals[-1] for record in records)
    return _gaps(records, since, until) or _gaps(records)


def _gaps(records: Sequence[RequestRecord], since: float = 0.0, until: float = math.inf) -> list[float]:
    """Return the seconds of each token between `since` and `until`. The time of a chunk with several tokens
    is divided evenly among them.
    """
    return [
        gap / events
        for record in records
        for at, gap, events in zip(record.arrivals, record.gaps, record.events[1:], strict=False)
        if since <= at and at + gap <= until
        for _ in range(events)
    ] or [record.latency for record in records]


def mean_times(before: StepTimes, after: StepTimes) -> StepTimes:
    """Return the mean of the step times measured before a run and those measured after it."""
    return StepTimes(
        before.rows,
        tuple((a + b) / 2 for a, b in zip(before.decode, after.decode, strict=True)),
        *(
            (getattr(before, name) + getattr(after, name)) / 2
            for name in ("prompt_token", "chunk", "overhead", "load")
        ),
    )


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """Figures of a run on real servers, and of its simulation."""

    replicas: int
    load: float
    """Load as a fraction of the capacity of the replicas."""
    rate: float
    """Number of requests that arrive per second."""
    real_tokens_per_second: float
    real_ttft_p50: float
    """Median TTFT on the real servers, in seconds."""
    model_tokens_per_second: float
    model_ttft_p50: float

    @property
    def errors(self) -> tuple[float, float]:
        """Relative errors of the simulation in throughput and in median TTFT: simulated value divided by real
        value, minus 1.
        """
        return (
            self.model_tokens_per_second / self.real_tokens_per_second - 1,
            self.model_ttft_p50 / self.real_ttft_p50 - 1,
        )

    @property
    def holds(self) -> bool:
        """True if the errors of the simulation in throughput and TTFT are at most `TOLERANCE`."""
        return all(abs(error) <= TOLERANCE for error in self.errors)


async def send_run(
    targets: Sequence[TargetServer], rate: float, seconds: float, seed: int
) -> list[RequestRecord]:
    """Send requests to `targets` in turn, with Poisson arrivals at `rate` per second, and return the records.
    Raises `TargetError` if a request fails.
    """
    options = PlanOptions(seed=seed, ask="names", prompt=PROMPTS)
    times = arrival_times(rate, seconds, Random(f"check/{seed}"))
    if len(times) < 2 * len(targets):
        raise ValueError(
            f"a run of {seconds} seconds has only {len(times)} requests, which is too few; raise "
            "--check-seconds"
        )
    planned = Planner(SCENARIO, targets[0], options).plan(0, times).requests
    return await _drive_all(targets, planned)


def check_run(records: Sequence[RequestRecord], plan: FleetPlan, share: float, rate: float) -> ModelCheck:
    """Simulate a run on real servers with the same arrivals and lengths, and compare the simulation with the
    run.
    """
    start = min(record.intended for record in records)
    requests = [
        FleetRequest(
            record.intended - start,
            max(1, record.prompt_tokens - record.cached_tokens),
            record.completion_tokens,
        )
        for record in records
    ]
    return _compare(records, simulate(plan, requests), plan.replicas, share, rate)


async def _drive_all(
    targets: Sequence[TargetServer], planned: Sequence[PlannedRequest]
) -> list[RequestRecord]:
    runs = await asyncio.gather(
        *(
            drive(target.url, planned[number :: len(targets)], LoadMode(0, 1, 600.0, target.endpoint.headers))
            for number, target in enumerate(targets)
        )
    )
    records = [record for run in runs for record in run.records]
    for record in records:
        if record.outcome != "completed":
            raise TargetError(f"request {record.number} to a server under test failed: {record.fault}")
    return sorted(records, key=lambda record: record.intended)


def _compare(
    records: Sequence[RequestRecord], model: FleetFigures, replicas: int, share: float, rate: float
) -> ModelCheck:
    seconds = max(record.end for record in records) - min(record.intended for record in records)
    first = [record.ttft for record in records if record.ttft is not None]
    assert model.ttft_ms is not None
    return ModelCheck(
        replicas,
        share,
        rate,
        sum(record.completion_tokens for record in records) / seconds,
        statistics.median(first),
        model.tokens_per_second,
        model.ttft_ms.p50 / 1e3,
    )

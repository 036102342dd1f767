"""Measure a scenario on a server: plan the requests, warm up, send them, compare the counts of server and
clients, and compute the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from bench.figures.level import ServiceLevel
from bench.figures.summary import RunFigures, summarize
from bench.load.arrivals import arrival_times
from bench.load.drive import LoadMode, OnProgress, by_user, drive
from bench.load.records import ClientJob, LoadProgress, LoadRun, PlannedRequest, RequestRecord
from bench.load.worker import run_job
from bench.scenarios.plan import LoadPlan, Planner, PlanOptions
from bench.scenarios.scenario import ServingScenario
from bench.target.changes import AdapterChange, AdapterChanges
from bench.target.http import Endpoint, TargetError
from bench.target.metrics import counts
from bench.target.probe import TargetServer
from bench.target.reconcile import Reconciliation, reconcile, settled
from bench.target.sampler import BatchSample, BatchSampler

WARM_UP_TOKENS, WARM_UP_USERS = 4, 4
WARM_UP = "Warm-up. "
POLL = 0.05
CHURN_SECONDS = 0.5
"""Seconds between loading and unloading an adapter in the scenario `adapter-churn`."""
CLOSING = frozenset({"llama.cpp"})
"""Servers that announce a persistent connection, but close it after a streamed answer. They get a new
connection for each request.
"""
FRESH = "each request uses a new connection, because this server closes connections that it promises to keep"
RECEIPT = {"X-OneSeek-Receipt": "body"}


@dataclass(frozen=True, slots=True)
class LoadShape:
    """The load on a server: a closed loop of `users` concurrent users, or an open loop with `rate` arrivals
    per second for `seconds`.
    """

    users: int = 0
    requests: int = 0
    """Total number of requests in a closed loop. 0: six for each user, but at least 40."""
    rate: float = 0.0
    seconds: float = 30.0
    burstiness: float = 1.0
    """Burstiness of an open loop. 1 is a Poisson process; larger values are burstier."""
    trace: bool = False
    """True if an open loop replays the arrival times of a trace. `rate` is then their mean."""

    def __post_init__(self) -> None:
        if (self.users > 0) == (self.rate > 0):
            raise ValueError(
                f"the load has {self.users} users and a rate of {self.rate}; set exactly one above 0"
            )
        if 0 < self.requests < self.users:
            raise ValueError(
                f"{self.requests} requests are too few; use at least one for each of the {self.users} users"
            )

    @property
    def count(self) -> int:
        """Total number of requests in a closed loop."""
        return self.requests or max(40, 6 * self.users)

    @property
    def label(self) -> str:
        """Name of the load in reports, such as `16 users`."""
        if self.users:
            return f"{self.users} user{'s' if self.users > 1 else ''}"
        if self.trace:
            return f"trace, {self.rate:.3g} requests/s"
        kind = "Poisson" if self.burstiness == 1 else f"burstiness {self.burstiness:g}"
        return f"{self.rate:g} requests/s, {kind}"


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """Options of a measurement that are the same for all scenarios of a report."""

    plan: PlanOptions = field(default_factory=PlanOptions)
    level: ServiceLevel = field(default_factory=ServiceLevel)
    processes: int = 0
    timeout: float = 600.0
    admin_key: str = ""
    adapter_paths: tuple[str, ...] = ()
    """Folders of adapters to load during the scenarios `hot-swap` (two versions) and `adapter-churn` (at
    least one). The paths are those on the server's machine.
    """
    warm_up: bool = True


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """All results of measuring a scenario once."""

    scenario: ServingScenario
    shape: LoadShape
    figures: RunFigures
    reconciliation: Reconciliation
    run: LoadRun
    batch: tuple[BatchSample, ...] = ()
    changes: tuple[AdapterChange, ...] = ()
    notes: tuple[str, ...] = ()
    queue_mean: float | None = None
    """Mean seconds that a request waited in the server's queue, from the server's metrics. None if the server
    has no such metric.
    """

    @property
    def failed(self) -> bool:
        """True if a request or an adapter change failed, or if the server's counters contradict the clients'
        counts.
        """
        changed = all(change.status == 200 for change in self.changes)
        return bool(self.figures.total.failed) or not changed or self.reconciliation.failed


async def measure(
    target: TargetServer,
    scenario: ServingScenario,
    shape: LoadShape,
    options: MeasureOptions,
    on_progress: OnProgress | None = None,
) -> ScenarioResult:
    """Measure `scenario` once. Raises `TargetError` if the server cannot serve the scenario or a warm-up
    request fails.
    """
    changes = _changes(target, scenario, options)
    if changes is not None and scenario.event == "swap":
        await changes.begin(options.adapter_paths[0])
    try:
        return await _measured(target, scenario, shape, options, changes, on_progress)
    finally:
        if changes is not None:
            await changes.leave()


async def _measured(
    target: TargetServer,
    scenario: ServingScenario,
    shape: LoadShape,
    options: MeasureOptions,
    changes: AdapterChanges | None,
    on_progress: OnProgress | None,
) -> ScenarioResult:
    planned = make_plan(target, scenario, shape, options.plan)
    headers = dict(target.endpoint.headers)
    if target.kind == "oneseek" and not scenario.voices:
        headers |= RECEIPT
    keep_alive = target.kind not in CLOSING
    load = LoadMode(shape.users, options.processes, options.timeout, headers, keep_alive)
    before = await asyncio.to_thread(counts, target.endpoint, target.kind)
    if options.warm_up:
        sent = await _warm_up(target, planned.requests, load) * max(1, scenario.voices)
        before = before and await asyncio.to_thread(settled, target.endpoint, target.kind, before, sent)
    sampler = BatchSampler(target.endpoint, target.kind)
    beside = _Beside(sampler, changes, scenario, target, options, len(planned.requests))
    run = await drive(target.url, planned.requests, load, on_progress, beside.run)
    sent = len(planned.requests) * max(1, scenario.voices)
    after = before and await asyncio.to_thread(settled, target.endpoint, target.kind, before, sent)
    return ScenarioResult(
        scenario,
        shape,
        summarize(run.records, run.seconds, options.level, shape.users),
        reconcile(_as_counted(run.records, scenario), before, after),
        run,
        tuple(sampler.samples),
        tuple(changes.done) if changes else (),
        planned.notes + (() if keep_alive else (FRESH,)),
        after.since(before).queue_mean if before and after else None,
    )


def make_plan(
    target: TargetServer, scenario: ServingScenario, shape: LoadShape, options: PlanOptions
) -> LoadPlan:
    """Return the requests of a run. A closed loop has `shape.count` requests; an open loop has one for each
    arrival, from a trace or at random.
    """
    planner = Planner(scenario, target, options)
    if shape.users:
        return planner.plan(shape.count)
    random = Random(f"arrivals/{options.seed}")
    times = [] if options.trace else arrival_times(shape.rate, shape.seconds, random, shape.burstiness)
    if not times and not options.trace:
        raise ValueError(
            f"a rate of {shape.rate} for {shape.seconds} s is too low to send a single request; raise --rate "
            "or --seconds"
        )
    return planner.plan(0, times)


def _as_counted(records: Sequence[RequestRecord], scenario: ServingScenario) -> list[RequestRecord]:
    """Return `records` with as many entries as the server counts requests. A question that several models
    answered was sent once, but the server counts it once for each model.
    """
    copies: list[RequestRecord] = []
    for record in records:
        copies.append(record)
        spare = replace(record, prompt_tokens=0, completion_tokens=0)
        copies += [spare] * (scenario.voices - 1 if record.outcome == "completed" else 0)
    return copies


async def _warm_up(target: TargetServer, requests: Sequence[PlannedRequest], load: LoadMode) -> int:
    """Send a short request to every adapter that the planned requests use, so that loading it is not
    measured. Return the number of requests. Raises `TargetError` if a request fails.
    """
    firsts = {asked.expects or asked.model: asked for asked in reversed(requests)}
    short = [
        replace(
            asked,
            number=number,
            # Another prompt than the measured one, which a cache would answer otherwise.
            body=_shorten(asked) if asked.check == "text" else asked.body,
            tokens=WARM_UP_TOKENS if asked.tokens and asked.check == "text" else asked.tokens,
            session=0,
            at=0.0,
            cancel_after=0,
        )
        for number, asked in enumerate(firsts.values(), 1)
    ]
    # In this process: nothing is measured, and a process of its own takes longer to start than this takes.
    users = tuple(map(tuple, by_user(short, WARM_UP_USERS)))
    job = ClientJob(target.url, dict(load.headers), load.timeout, users, keep_alive=load.keep_alive)
    records = (await run_job(job, time.monotonic())).records
    failed = [record for record in records if record.outcome == "failed"]
    if failed:
        raise TargetError(f"a warm-up request to {target.url} failed: {failed[0].fault}")
    return len(short)


def _shorten(asked: PlannedRequest) -> dict[str, Any]:
    bounds = ("max_tokens", "min_tokens") if asked.tokens else ()
    tokens = {name: WARM_UP_TOKENS for name in bounds if name in asked.body}
    if "prompt" in asked.body:
        return asked.body | tokens | {"prompt": WARM_UP + asked.body["prompt"]}
    warm = {"role": "user", "content": WARM_UP + asked.body["messages"][-1]["content"]}
    return asked.body | tokens | {"messages": [warm]}


def _changes(
    target: TargetServer, scenario: ServingScenario, options: MeasureOptions
) -> AdapterChanges | None:
    if not scenario.event:
        return None
    least = 2 if scenario.event == "swap" else 1
    if len(options.adapter_paths) < least:
        raise TargetError(
            f"the scenario {scenario.name!r} loads adapters during the run; give at least {least} adapter "
            "folders that the server can read with --adapter-path, or start a server with --start oneseek"
        )
    headers = {"Authorization": f"Bearer {options.admin_key}"} if options.admin_key else {}
    return AdapterChanges(Endpoint(target.url, {**target.endpoint.headers, **headers}))


@dataclass(frozen=True, slots=True)
class _Beside:
    """The work that runs during the load of a scenario: sampling the server's metrics, and changing its
    adapters.
    """

    sampler: BatchSampler
    changes: AdapterChanges | None
    scenario: ServingScenario
    target: TargetServer
    options: MeasureOptions
    requests: int

    async def run(self, progress: Callable[[], LoadProgress]) -> None:
        """Sample the metrics and make the adapter changes until every request of the load has ended."""
        sampling = asyncio.create_task(self.sampler.run())
        try:
            if self.changes is not None:
                await self._change(self.changes, progress)
            while progress().ended < self.requests:
                await asyncio.sleep(POLL)
        finally:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling

    async def _change(self, changes: AdapterChanges, progress: Callable[[], LoadProgress]) -> None:
        paths = self.options.adapter_paths
        if self.scenario.event == "swap":
            await changes.swap(paths[1], progress, self.requests)
        else:
            await changes.churn(paths, progress, self.requests, CHURN_SECONDS)

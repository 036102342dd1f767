"""Simulate a fleet of servers under a load, with a fixed number of replicas or with autoscaling."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from bench.figures.spread import MsSpread, spread_ms
from bench.scale.replica import FleetProgress, Replica, ReplicaLimits, SimulatedFleet
from bench.scale.router import ROUTERS, FleetRouter
from bench.scale.times import StepTimes
from bench.scale.workload import FleetRequest


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Rules of the simulated autoscaler: when it starts and stops replicas."""

    most: int
    """Maximum number of replicas. The minimum is `FleetPlan.replicas`."""
    target: float = 8.0
    """Number of unfinished requests per replica that the autoscaler aims for."""
    interval: float = 15.0
    """Seconds between two decisions of the autoscaler."""
    start_seconds: float = 60.0
    """Seconds from the decision to start a replica until it is ready."""
    quiet_seconds: float = 300.0
    """Seconds for which fewer replicas must have been enough before the autoscaler stops one."""

    def __post_init__(self) -> None:
        for name in ("most", "target", "interval"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"the autoscaling option {name} {getattr(self, name)} is invalid; use a number above 0"
                )


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """The parameters of a simulated fleet."""

    replicas: int
    times: StepTimes
    limits: ReplicaLimits = field(default_factory=ReplicaLimits)
    router: str = "affinity"
    autoscaling: Autoscaling | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= 1000:
            raise ValueError(f"the number of replicas {self.replicas} is out of range; use 1 to 1,000")
        if self.router not in ROUTERS:
            raise ValueError(f"the router {self.router!r} is unknown; use one of {', '.join(ROUTERS)}")


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """The results of simulating a fleet."""

    replicas: float
    """Mean number of replicas over the simulated time."""
    most_replicas: int
    requests: int
    seconds: float
    """Seconds from the first arrival until the last request ends."""
    tokens_per_second: float
    requests_per_second: float
    ttft_ms: MsSpread | None
    gap_ms: MsSpread | None
    """Mean inter-token latency of each answer, in milliseconds: statistics over all answers."""
    cold: float
    """Share of the requests whose adapter had to be loaded first."""
    cached: float
    """Share of the prompt tokens that were found in a prefix cache."""

    def cost_per_million(self, price: float) -> float:
        """Return the cost of a million answer tokens if a replica costs `price` an hour."""
        return self.replicas * price / (3600 * self.tokens_per_second) * 1e6


def simulate(plan: FleetPlan, requests: Sequence[FleetRequest]) -> FleetFigures:
    """Simulate the fleet until every request has ended. The same input gives the same figures."""
    return _Run(plan, requests).result()


class _Run:
    def __init__(self, plan: FleetPlan, requests: Sequence[FleetRequest]) -> None:
        if not requests:
            raise ValueError("no request arrives in the simulated time; raise --rate or --seconds")
        self._plan, self._requests = plan, requests
        self._env, self._fleet = simpy.Environment(), SimulatedFleet()
        self._made = self._ended = self._in_flight = self._most = 0
        self._replica_seconds, self._counted = 0.0, requests[0].at
        self._starting = 0
        self._quiet_since: float | None = None
        for _ in range(plan.replicas):
            self._add()
        self._router: FleetRouter = ROUTERS[plan.router](self._fleet)
        self._progress: list[FleetProgress] = []
        self._done = self._env.event()

    def result(self) -> FleetFigures:
        self._env.process(self._arrivals())
        if self._plan.autoscaling:
            self._env.process(self._scale(self._plan.autoscaling))
        self._env.run(self._done)
        seconds = max(self._env.now - self._requests[0].at, 1e-9)
        self._count()
        return self._figures(seconds)

    def _count(self) -> None:
        """Add up the time for which replicas are paid since the last call. A replica costs from the decision
        to start it until it is stopped.
        """
        since, self._counted = self._env.now - self._counted, self._env.now
        self._replica_seconds += (len(self._fleet.replicas) + self._starting) * max(0.0, since)

    def _figures(self, seconds: float) -> FleetFigures:
        every = self._progress
        prompts = sum(one.request.prompt_tokens for one in every)
        gaps = [(one.end - one.first) / (one.made - 1) for one in every if one.made > 1]
        return FleetFigures(
            replicas=self._replica_seconds / seconds,
            most_replicas=self._most,
            requests=len(every),
            seconds=seconds,
            tokens_per_second=sum(one.made for one in every) / seconds,
            requests_per_second=len(every) / seconds,
            ttft_ms=spread_ms(one.first - one.request.at for one in every),
            gap_ms=spread_ms(gaps),
            cold=sum(one.cold for one in every) / len(every),
            cached=sum(one.cached for one in every) / prompts,
        )

    def _arrivals(self) -> Generator[Any, Any, None]:
        for request in self._requests:
            yield self._env.timeout(max(0.0, request.at - self._env.now))
            replica = self._router.choose(request, self._in_flight)
            self._in_flight += 1
            self._progress.append(replica.submit(request))

    def _end(self, progress: FleetProgress) -> None:
        self._in_flight -= 1
        self._ended += 1
        if self._ended == len(self._requests):
            self._done.succeed()

    def _add(self) -> None:
        replica = Replica(self._env, self._made, self._plan.times, self._plan.limits, self._end)
        self._made += 1
        self._fleet.replicas.append(replica)
        self._fleet.version += 1
        self._most = max(self._most, len(self._fleet.replicas))

    def _scale(self, by: Autoscaling) -> Generator[Any, Any, None]:
        """Run the autoscaler: check the load at every interval, and start or stop replicas."""
        while True:
            yield self._env.timeout(by.interval)
            now = len(self._fleet.replicas)
            self._count()
            wanted = max(self._plan.replicas, min(by.most, math.ceil(self._in_flight / by.target)))
            for _ in range(wanted - now - self._starting):
                self._starting += 1
                self._env.process(self._start(by.start_seconds))
            if wanted >= now:
                self._quiet_since = None
            elif self._quiet_since is None:
                self._quiet_since = self._env.now
            elif self._env.now - self._quiet_since >= by.quiet_seconds:
                self._remove()

    def _start(self, seconds: float) -> Generator[Any, Any, None]:
        yield self._env.timeout(seconds)
        self._count()
        self._starting -= 1
        self._add()

    def _remove(self) -> None:
        """Stop the replica with the fewest unfinished requests. It gets no new requests, but finishes those
        that it has.
        """
        gone = min(self._fleet.replicas, key=lambda replica: replica.load)
        gone.draining = True
        self._fleet.replicas.remove(gone)
        self._fleet.version += 1

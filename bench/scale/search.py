"""Find the smallest fleet that keeps a service level in the simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.figures.level import ServiceLevel
from bench.scale.simulate import FleetFigures, FleetPlan, simulate
from bench.scale.workload import FleetRequest

MOST = 1000


@dataclass(frozen=True, slots=True)
class FleetTry:
    """The result of simulating a fleet of one size."""

    replicas: int
    figures: FleetFigures
    holds: bool


def keeps(figures: FleetFigures, level: ServiceLevel) -> bool:
    """True if the 95th percentiles of TTFT and of the answers' mean inter-token latency are within
    `level`.
    """
    first, gap = figures.ttft_ms, figures.gap_ms
    return (first is None or first.p95 <= level.ttft_ms) and (gap is None or gap.p95 <= level.itl_ms)


def try_fleet(plan: FleetPlan, requests: Sequence[FleetRequest], level: ServiceLevel) -> FleetTry:
    """Simulate a fleet of `plan.replicas` replicas, and check whether it keeps the service level."""
    figures = simulate(plan, requests)
    return FleetTry(plan.replicas, figures, keeps(figures, level))


def smallest_fleet(
    plan: FleetPlan, requests: Sequence[FleetRequest], level: ServiceLevel, show: Callable[[FleetTry], None]
) -> list[FleetTry]:
    """Double the number of replicas from `plan.replicas` until the fleet keeps the service level, then search
    between the last two sizes by bisection.

    Return all fleets that were simulated. The last is the smallest that keeps the level; if no fleet up to
    1,000 replicas does, the list has only the largest.
    """
    tries: dict[int, FleetTry] = {}

    def attempt(replicas: int) -> bool:
        if replicas not in tries:
            tries[replicas] = try_fleet(replace(plan, replicas=replicas), requests, level)
            show(tries[replicas])
        return tries[replicas].holds

    low, high = 0, plan.replicas
    while not attempt(high):
        if high == MOST:
            return [tries[high]]
        low, high = high, min(MOST, 2 * high)
    while high - low > 1 and low:
        middle = (low + high) // 2
        low, high = (low, middle) if attempt(middle) else (middle, high)
    return [*(found for size, found in sorted(tries.items()) if size != high), tries[high]]

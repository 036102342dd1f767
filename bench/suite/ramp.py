"""Find the largest load that keeps the service level: raise the load until the level is missed, then narrow
down the limit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from bench.suite.measure import LoadShape, ScenarioResult

NARROWING = 3
"""Number of loads to measure between the last one that kept the service level and the first that
missed it.
"""
MOST = 4096.0
"""Maximum load of a ramp, in users or arrivals per second."""


@dataclass(frozen=True, slots=True)
class RampResult:
    """The results of all loads of a ramp in ascending order, and the largest load that kept the service
    level.
    """

    steps: tuple[ScenarioResult, ...]
    holds: float
    """Largest load that kept the service level, in users or arrivals per second. 0 if none did."""
    bounded: bool
    """True if the ramp reached a load that missed the service level."""


def amount(shape: LoadShape) -> float:
    """Return the size of a load: its users, or its arrivals per second."""
    return shape.users or shape.rate


async def ramp(
    first: LoadShape, step: Callable[[LoadShape], Awaitable[ScenarioResult]], most: float = MOST
) -> RampResult:
    """Double the load from `first` until the service level is missed or a request fails. Then bisect between
    the last two loads a few times.
    """
    found: list[ScenarioResult] = []
    held, broke = 0.0, 0.0
    now = amount(first)

    async def holds(value: float) -> bool:
        found.append(await step(_at(first, value)))
        return found[-1].figures.level_holds and not found[-1].failed

    while now <= most:
        if not await holds(now):
            broke = now
            break
        held, now = now, now * 2
    for _ in range(NARROWING if broke and held else 0):
        middle = (held + broke) / 2
        if first.users and round(middle) in (round(held), round(broke)):
            break
        if await holds(middle):
            held = float(round(middle)) if first.users else middle
        else:
            broke = middle
    return RampResult(tuple(sorted(found, key=lambda result: amount(result.shape))), held, bool(broke))


def _at(first: LoadShape, value: float) -> LoadShape:
    """Return a load of `value` users or arrivals per second, with as many requests for each user as in
    `first`.
    """
    if not first.users:
        return replace(first, rate=value)
    users = round(value)
    return replace(first, users=users, requests=-(-first.requests * users // first.users))

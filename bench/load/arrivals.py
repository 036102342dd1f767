"""Arrival times of the requests of an open loop: a Poisson process, or a burstier one."""

from __future__ import annotations

from random import Random


def arrival_times(rate: float, seconds: float, random: Random, burstiness: float = 1.0) -> list[float]:
    """Arrival times in [0, `seconds`) at `rate` a second on average.

    Gaps are gamma distributed with shape 1 / `burstiness`, as `vllm bench serve` draws them: 1 is Poisson,
    larger is burstier (the squared coefficient of variation of the gaps), smaller is more regular.
    """
    for name, value in (("rate", rate), ("seconds", seconds), ("burstiness", burstiness)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} {value} is invalid; use a number above 0")
    times: list[float] = []
    at = random.gammavariate(1 / burstiness, burstiness / rate)
    while at < seconds:
        times.append(at)
        at += random.gammavariate(1 / burstiness, burstiness / rate)
    return times

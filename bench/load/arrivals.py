"""Draw the arrival times of requests for an open loop, as a Poisson process or a burstier one."""

from __future__ import annotations

from random import Random


def arrival_times(rate: float, seconds: float, random: Random, burstiness: float = 1.0) -> list[float]:
    """Return arrival times from 0 to `seconds`, at `rate` per second on average. Raises `ValueError` for a
    number that is not above 0.

    The gaps between arrivals are gamma distributed with shape 1 / `burstiness`, as in `vllm bench serve`. 1
    is a Poisson process, larger values are burstier, smaller ones more regular; `burstiness` is the squared
    coefficient of variation of the gaps.
    """
    for name, value in (("rate", rate), ("seconds", seconds), ("burstiness", burstiness)):
        if not 0 < value < float("inf"):
            raise ValueError(
                f"the {name} {value} of the open loop's arrivals is invalid; use a number above 0"
            )
    times: list[float] = []
    at = random.gammavariate(1 / burstiness, burstiness / rate)
    while at < seconds:
        times.append(at)
        at += random.gammavariate(1 / burstiness, burstiness / rate)
    return times

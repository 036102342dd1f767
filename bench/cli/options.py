"""Command-line flags for the load, shared by several verbs, and their conversion to options."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

from bench.figures.level import ServiceLevel
from bench.scenarios.plan import PATHS, PlanOptions
from bench.suite.measure import LoadShape, MeasureOptions
from bench.text.brought import TraceArrival, read_sharegpt, read_trace
from bench.text.prompts import LengthSpread

PROMPT_SIGMA = ANSWER_SIGMA = 0.5
"""Sigma of the log-normal distribution of prompt and answer lengths, if a flag sets their median."""


class BenchMistakeError(ValueError):
    """The command line has a mistake. The message names the flag."""


def count(text: str) -> int:
    """Parse the value of a flag that takes an integer above 0. Raises `argparse.ArgumentTypeError`."""
    number = above_zero(text)
    if number != int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer")
    return int(number)


def above_zero(text: str) -> float:
    """Parse the value of a flag that takes a number above 0. Raises `argparse.ArgumentTypeError`."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is out of range; use a number above 0")
    return number


def counts(text: str) -> tuple[int, ...]:
    """Parse the value of a flag that takes integers above 0, separated by commas. Raises
    `argparse.ArgumentTypeError`.
    """
    return tuple(count(number) for number in text.split(","))


def add_load_flags(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the flags for the load and its prompts. If `several` is true, --users and --endpoint take lists."""
    add = parser.add_argument_group("load to send").add_argument
    users = "Run a closed loop with this number of users. Default: 16."
    how = "Send requests to this endpoint: chat or completions. Default: chat."
    if several:
        lists = " Takes a list with commas."
        add("--users", type=counts, default=(), metavar="N[,N]", help=users + lists)
        add("--endpoint", default="chat", metavar="NAME[,NAME]", help=how + lists)
    else:
        add("--users", type=count, default=0, help=users)
        add("--endpoint", choices=PATHS, default="chat", help=how)
    add(
        "--requests",
        type=count,
        default=0,
        help="Send this many requests in a closed loop. Default: 6 for each user, at least 40.",
    )
    add(
        "--rate",
        type=above_zero,
        default=0.0,
        help="Run an open loop with this number of arrivals per second.",
    )
    add(
        "--seconds",
        type=above_zero,
        default=30.0,
        help="Seconds of an open loop, or of the part of a trace to replay. Default: 30.",
    )
    add(
        "--burstiness",
        type=above_zero,
        default=1.0,
        help="Burstiness of an open loop. 1 is a Poisson process; more is burstier. Default: 1.",
    )
    add("--processes", type=count, default=0, help="Number of client processes. Default: one for 64 users.")
    add(
        "--timeout",
        type=above_zero,
        default=600.0,
        help="Cancel a request after this many seconds. Default: 600.",
    )
    add("--seed", type=int, default=0, help="Random seed of the requests. Default: 0.")
    add(
        "--ask",
        choices=("auto", "names"),
        default="auto",
        help="auto: OneSeek routes requests by language. names: requests name an adapter. Default: auto.",
    )
    add(
        "--prompt-words",
        type=above_zero,
        default=0,
        help="Median length of prompts in words. Default: the scenario's.",
    )
    add(
        "--answer-tokens",
        type=above_zero,
        default=0,
        help="Median length of answers in tokens. Default: the scenario's.",
    )
    add("--natural", action="store_true", help="Let the model end answers by itself, before --answer-tokens.")
    add("--prompts", type=Path, help="Take the prompts from this JSON file in ShareGPT's format.")
    add(
        "--trace",
        type=Path,
        help="Replay lengths and arrival times of this CSV file, a trace in Azure's format (open loop).",
    )
    add_level_flags(add)


def add_level_flags(add: Callable[..., object]) -> None:
    """Add the flags for the service level. `add` is the method `add_argument` of a parser or of a group of
    flags.
    """
    add(
        "--ttft-ms",
        type=above_zero,
        default=500.0,
        help="Service level: highest p95 of the TTFT, in milliseconds. Default: 500.",
    )
    add(
        "--itl-ms",
        type=above_zero,
        default=50.0,
        help="Service level: highest p95 of the inter-token latency, in milliseconds. Default: 50.",
    )


def load_shape(given: argparse.Namespace) -> LoadShape:
    """Return the load, a closed or an open loop, that the flags describe. Raises `BenchMistakeError` if the
    flags contradict each other.
    """
    if given.users and given.rate:
        raise BenchMistakeError(
            "--users (closed loop) and --rate (open loop) cannot be combined; give one of them"
        )
    if given.trace:
        if given.users or given.rate or getattr(given, "ramp", False):
            raise BenchMistakeError(
                "--trace replays the arrivals of a trace, so it cannot be combined with --users, --rate or "
                "--ramp; leave them out"
            )
        arrivals = _trace(given.trace, given.seconds)
        return LoadShape(rate=len(arrivals) / given.seconds, seconds=given.seconds, trace=True)
    if given.rate:
        return LoadShape(rate=given.rate, seconds=given.seconds, burstiness=given.burstiness)
    return LoadShape(users=given.users or 16, requests=given.requests)


def measure_options(given: argparse.Namespace) -> MeasureOptions:
    """Return the options that the flags set for all scenarios of a measurement."""
    plan = PlanOptions(
        seed=given.seed,
        ask=given.ask,
        endpoint=given.endpoint,
        prompt=_spread(given.prompt_words, 4),
        answer=_spread(given.answer_tokens, 1),
        exact=not given.natural,
        questions=tuple(read_sharegpt(given.prompts)) if given.prompts else (),
        trace=_trace(given.trace, given.seconds) if given.trace else (),
    )
    level = ServiceLevel(given.ttft_ms, given.itl_ms)
    return MeasureOptions(plan, level, given.processes, given.timeout)


@cache
def _trace(path: Path, seconds: float) -> tuple[TraceArrival, ...]:
    return tuple(arrival for arrival in read_trace(path) if arrival.at < seconds)


def _spread(median: float, least: int) -> LengthSpread | None:
    if not median:
        return None
    if median < least:
        raise BenchMistakeError(
            f"the median length {median:g} of prompts or answers is too small; use at least {least}"
        )
    return LengthSpread(median, PROMPT_SIGMA, max(least, round(median / 4)), round(median * 4))


def pairs(entries: list[str], flag: str) -> dict[str, str]:
    """Parse entries of the form `NAME=VALUE`. Raises `BenchMistakeError` if the name or the value is
    missing.
    """
    found: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if not name or not value:
            raise BenchMistakeError(f"{flag} {entry!r} does not have the form NAME=VALUE")
        found[name] = value
    return found

"""`oneseek bench scale`: estimate by simulation how many servers a load needs, with their latency and cost.

    oneseek bench scale --start oneseek --measure times.json --rate 20
    oneseek bench scale --times times.json --rate 200 --adapters 100 --price 0.7
    oneseek bench scale --times times.json --trace azure.csv --replicas 4,8,16 --router round-robin
    oneseek bench scale --times times.json --rate 50 --replicas 2 --autoscale 40
    oneseek bench scale --check

The times of engine steps come from a file, or are measured on a server. --check compares the simulation with
one and with two real servers, at 50% and at 80% of their capacity. The last line of standard output is one
JSON object. Exit codes: 0; 1 if no fleet keeps the service level, or if the simulation is off by more than
15%; 2 for a mistake in the command.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.cli.options import BenchMistakeError, add_level_flags
from bench.cli.server import ServerChoice, add_start_flags, add_target_flags, opened, start_options
from bench.cli.verb import deliver, guarded
from bench.contenders.start import started
from bench.figures.level import ServiceLevel
from bench.report.document import environment
from bench.scale.measure import (
    CHECKED,
    LOADS,
    ModelCheck,
    check_run,
    mean_times,
    measure_capacity,
    measure_times,
    send_run,
)
from bench.scale.replica import ReplicaLimits
from bench.scale.router import ROUTERS
from bench.scale.search import MOST, FleetTry, smallest_fleet, try_fleet
from bench.scale.simulate import Autoscaling, FleetPlan
from bench.scale.times import StepTimes, read_times, write_times
from bench.scale.workload import ANSWER, PROMPT, FleetRequest, WorkloadOptions, draw
from bench.target.http import Endpoint
from bench.target.probe import probe
from bench.text.brought import read_trace
from bench.text.prompts import LengthSpread

SCHEMA = "oneseek-bench-scale/1"
MODEL = "a model, not a measurement: real runs can check it with 1 and 2 replicas (--check), and no further"
THREADS = ("--threads", "1")
"""Flags of each server in a check: one thread, so that two servers can share a machine with two cores."""
COLUMNS = (
    f"{'replicas':>8}{'tokens/s':>11}{'requests/s':>12}{'TTFT p50':>10}{'p95 ms':>9}{'gap p95':>9}"
    f"{'cold':>7}{'cached':>8}{'per 1M':>9}  level"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `oneseek bench scale`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, limits, work = parser.add_argument, ReplicaLimits(), WorkloadOptions()
    add(
        "--times",
        type=Path,
        metavar="FILE",
        help="Read the times of engine steps from this file, which --measure wrote.",
    )
    add(
        "--measure",
        type=Path,
        metavar="FILE",
        help="Measure the times of engine steps and write them to this file.",
    )
    add("--check", action="store_true", help="Compare the simulation with one and two real servers.")
    add(
        "--check-seconds", type=float, default=30.0, help="Seconds of each real run for --check. Default: 30."
    )
    add(
        "--replicas",
        default="",
        help=f"Numbers of replicas, separated by commas. Default: the fewest that suffice, up to {MOST:,}.",
    )
    add(
        "--router", choices=tuple(ROUTERS), default="affinity",
        help="How the load balancer chooses the replica for a request. Default: affinity.",
    )  # fmt: skip
    add(
        "--autoscale",
        type=int,
        default=0,
        metavar="MOST",
        help="Autoscale from --replicas up to this number.",
    )
    add(
        "--target-load",
        type=float,
        default=8.0,
        help="Requests that each replica should have, for autoscaling. Default: 8.",
    )
    add(
        "--start-seconds", type=float, default=60.0, help="Seconds until a new replica is ready. Default: 60."
    )
    add(
        "--rate",
        type=float,
        default=work.rate,
        help=f"Number of arrivals per second. Default: {work.rate:g}.",
    )
    add(
        "--seconds",
        type=float,
        default=work.seconds,
        help=f"Seconds during which requests arrive. Default: {work.seconds:g}.",
    )
    add(
        "--burstiness",
        type=float,
        default=1.0,
        help="Burstiness of arrivals. 1 is a Poisson process; more is burstier. Default: 1.",
    )
    add("--trace", type=Path, help="Take arrival times and lengths from this CSV trace in Azure's format.")
    add(
        "--prompt-tokens",
        type=float,
        default=PROMPT.median,
        help=f"Median length of prompts in tokens. Default: {PROMPT.median:g}.",
    )
    add(
        "--answer-tokens",
        type=float,
        default=ANSWER.median,
        help=f"Median length of answers in tokens. Default: {ANSWER.median:g}.",
    )
    add("--adapters", type=int, default=work.adapters, help=f"Number of adapters. Default: {work.adapters}.")
    add(
        "--zipf",
        type=float,
        default=work.zipf,
        help=f"Zipf exponent of the adapters' popularity. Default: {work.zipf:g}.",
    )
    add(
        "--turns",
        type=int,
        default=work.turns,
        help=f"Turns of a conversation; each prompt includes the earlier ones. Default: {work.turns}.",
    )
    add("--seed", type=int, default=0, help="Random seed of the simulation. Default: 0.")
    add(
        "--max-num-seqs",
        type=int,
        default=limits.max_num_seqs,
        help=f"Maximum number of requests in a replica's batch. Default: {limits.max_num_seqs}.",
    )
    add(
        "--max-num-batched-tokens",
        type=int,
        default=limits.max_num_batched_tokens,
        help=f"Maximum tokens in an engine step. Default: {limits.max_num_batched_tokens}.",
    )
    add(
        "--adapter-slots",
        type=int,
        default=limits.slots,
        help=f"Adapter slots of a replica. Default: {limits.slots}.",
    )
    add("--load-seconds", type=float, help="Seconds to load an adapter. Default: the measured time, else 0.")
    add_level_flags(add)
    add("--price", type=float, default=0.0, help="Price of a replica per hour, for the cost. Default: 0.")
    add("--out", type=Path, help="Write the result to this file, as JSON.")
    add_target_flags(parser)
    add_start_flags(parser)
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Measure step times if needed, simulate the fleet, and print the result. Return the exit code."""
    return guarded("scale", build_parser(), _run, given)


def _run(arguments: argparse.Namespace) -> int:
    document = _check(arguments) if arguments.check else _scale(arguments)
    print(MODEL)
    about = environment(ServerChoice.read(arguments).python)
    deliver("scale", {"schema": SCHEMA, "model": MODEL, **about, **document}, arguments.out)
    return 0 if document["holds"] else 1


def _limits(arguments: argparse.Namespace) -> ReplicaLimits:
    return ReplicaLimits(arguments.max_num_seqs, arguments.max_num_batched_tokens, arguments.adapter_slots)


def _times(arguments: argparse.Namespace) -> StepTimes:
    """Return the step times: read from the file of --times, or measured on a server."""
    if arguments.times and (arguments.measure or arguments.start or arguments.url):
        raise BenchMistakeError(
            "--times cannot be combined with --measure, --start or --url, because its file has the step times"
        )
    if arguments.times:
        times = read_times(arguments.times)
    else:
        with opened(ServerChoice.read(arguments)) as target:
            times = asyncio.run(measure_times([target.server], _limits(arguments), arguments.seed))
        if arguments.measure:
            write_times(arguments.measure, times, environment(ServerChoice.read(arguments).python))
    return times if arguments.load_seconds is None else replace(times, load=arguments.load_seconds)


def _workload(arguments: argparse.Namespace) -> list[FleetRequest]:
    trace = read_trace(arguments.trace) if arguments.trace else []
    options = WorkloadOptions(
        rate=arguments.rate,
        seconds=arguments.seconds,
        burstiness=arguments.burstiness,
        prompt=_spread("--prompt-tokens", arguments.prompt_tokens, PROMPT.sigma),
        answer=_spread("--answer-tokens", arguments.answer_tokens, ANSWER.sigma),
        adapters=arguments.adapters,
        zipf=arguments.zipf,
        turns=arguments.turns,
        seed=arguments.seed,
    )
    return draw(options, trace)


def _spread(flag: str, median: float, sigma: float) -> LengthSpread:
    if median < 1:
        raise BenchMistakeError(f"{flag} {median:g} is too small; use at least 1")
    return LengthSpread(median, sigma, max(1, round(median / 4)), round(median * 8))


def _sizes(arguments: argparse.Namespace) -> list[int]:
    try:
        return [int(word) for word in arguments.replicas.split(",") if word]
    except ValueError:
        raise BenchMistakeError(
            f"--replicas {arguments.replicas!r} is invalid; use whole numbers separated by commas"
        ) from None


def _scale(arguments: argparse.Namespace) -> dict[str, Any]:
    sizes, level = _sizes(arguments), ServiceLevel(arguments.ttft_ms, arguments.itl_ms)
    if arguments.price < 0:
        raise BenchMistakeError(f"--price {arguments.price:g} is invalid; use 0 or more")
    scaling = None
    if arguments.autoscale:
        if len(sizes) != 1 or arguments.autoscale <= sizes[0]:
            raise BenchMistakeError(
                f"--autoscale {arguments.autoscale} needs --replicas with a single, smaller number"
            )
        scaling = Autoscaling(
            arguments.autoscale, target=arguments.target_load, start_seconds=arguments.start_seconds
        )
    limits, requests = _limits(arguments), _workload(arguments)
    times = _times(arguments)
    plan = FleetPlan(sizes[0] if sizes else 1, times, limits, arguments.router, scaling)
    print(COLUMNS)

    def show(found: FleetTry) -> None:
        print(_line(found, arguments.price), flush=True)

    if sizes:
        tries: list[FleetTry] = []
        for size in sizes:
            tries.append(try_fleet(replace(plan, replicas=size), requests, level))
            show(tries[-1])
    else:
        tries = smallest_fleet(plan, requests, level, show)
    needed = min((found.replicas for found in tries if found.holds), default=None)
    print(
        "no fleet size meets the service level"
        if needed is None
        else f"smallest fleet that meets the service level: {needed:,}"
    )
    return {
        "holds": needed is not None,
        "needed": needed,
        "level": asdict(level),
        "times": asdict(times),
        "limits": asdict(limits),
        "router": arguments.router,
        "autoscaling": asdict(scaling) if scaling else None,
        "price_per_hour": arguments.price or None,
        "tries": [_to_json(found, arguments.price) for found in tries],
    }


def _line(found: FleetTry, price: float) -> str:
    own = found.figures
    first = (own.ttft_ms.p50, own.ttft_ms.p95) if own.ttft_ms else (0.0, 0.0)
    gap = own.gap_ms.p95 if own.gap_ms else 0.0
    cost = f"{own.cost_per_million(price):.3f}" if price else "-"
    start = f"{own.replicas:>8.4g}{own.tokens_per_second:>11,.0f}{own.requests_per_second:>12,.2f}"
    times = f"{first[0]:>10,.0f}{first[1]:>9,.0f}{gap:>9.1f}"
    end = f"{own.cold:>7.1%}{own.cached:>8.1%}{cost:>9}  {'holds' if found.holds else 'broken'}"
    return start + times + end


def _to_json(found: FleetTry, price: float) -> dict[str, Any]:
    cost = found.figures.cost_per_million(price) if price else None
    shown = {"replicas": found.replicas, "holds": found.holds, "figures": asdict(found.figures)}
    return shown | {"cost_per_million_tokens": cost}


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the simulation with one and with two real servers, which run on one thread each."""
    if arguments.url or arguments.times:
        raise BenchMistakeError(
            "--check cannot be combined with --url or --times, because it starts and measures its own servers"
        )
    limits, found = _limits(arguments), list[ModelCheck]()
    head = f"{'replicas':>8}{'load':>6}{'rate':>8}{'tokens/s':>10}{'model':>9}{'TTFT p50':>10}{'model':>8}"
    print(f"{head}  within 15%")
    for replicas in CHECKED:
        found += _check_size(arguments, limits, replicas)
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    checks = [asdict(check) | {"errors": check.errors, "holds": check.holds} for check in found]
    return {"holds": all(check.holds for check in found), "checks": checks, "load_average_after": load}


def _check_size(arguments: argparse.Namespace, limits: ReplicaLimits, replicas: int) -> list[ModelCheck]:
    name = arguments.start or "oneseek"
    options, _ = start_options(ServerChoice.read(arguments), name)
    options = replace(options, streams=limits.max_num_seqs, options=(*THREADS, *options.options))
    with ExitStack() as stack:
        named = [replace(options, label=f"scale-{number}") for number in range(replicas)]
        urls = [stack.enter_context(started(name, one)).url for one in named]
        targets = [probe(Endpoint(url)) for url in urls]
        found: list[ModelCheck] = []
        for number, share in enumerate(LOADS):
            seed = arguments.seed + 10 * replicas + number
            # Before and after each run: on a shared machine, speed changes.
            before = asyncio.run(measure_times(targets, limits, seed + 1000))
            rate = share * replicas * asyncio.run(measure_capacity(targets, limits, seed + 2000))
            records = asyncio.run(send_run(targets, rate, arguments.check_seconds, seed))
            after = asyncio.run(measure_times(targets, limits, seed + 3000))
            plan = FleetPlan(replicas, mean_times(before, after), limits, "round-robin")
            found.append(check_run(records, plan, share, rate))
            print(_check_line(found[-1]), flush=True)
        return found


def _check_line(check: ModelCheck) -> str:
    start = f"{check.replicas:>8}{check.load:>6.0%}{check.rate:>8.2f}"
    rates = f"{check.real_tokens_per_second:>10.1f}{check.model_tokens_per_second:>9.1f}"
    first = f"{check.real_ttft_p50 * 1e3:>10.1f}{check.model_ttft_p50 * 1e3:>8.1f}"
    says = "  ".join(f"{error:+.1%}" for error in check.errors)
    return f"{start}{rates}{first}  {'yes' if check.holds else 'no'} ({says})"


if __name__ == "__main__":
    sys.exit(main())

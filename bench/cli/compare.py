"""`oneseek bench compare A B`: measure whether server B is as good as server A.

    oneseek bench compare http://127.0.0.1:8000 http://127.0.0.1:8001 --users 16
    oneseek bench compare commit:HEAD~1 commit:HEAD --threshold 0.97
    oneseek bench compare oneseek peft-service --rounds 7
    oneseek bench compare vllm oneseek-vllm --scenario front-end --users 64,8,1 --endpoint chat,completions
    oneseek bench compare before/report.json after/report.json

A and B are measured in turn with the same prompts. Each figure is reported as the ratio of B to A, with a
bootstrap interval of 95%. --users and --endpoint take several values, separated by commas; each round then
measures every number of users at every endpoint. --on names the figures that decide whether B passes.

Exit codes: 0 if B passes, 1 if a figure named by --on is beyond --threshold, 2 for a mistake in the command.
The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.cli.limit import add_limit_flags, limit_of
from bench.cli.options import BenchMistakeError, add_load_flags, count
from bench.cli.points import ComparedPoint, ComparePoint, PointGate, read_points
from bench.cli.server import OpenTarget, ServerChoice, add_access_flags, add_start_flags
from bench.cli.sides import FORMS, contender_of, is_report, opened_side, read_rounds
from bench.cli.verb import deliver, guarded
from bench.figures.compared import COMPARED, RoundFigures
from bench.figures.intervals import LEAST_ROUNDS
from bench.limits.reached import RunLimit
from bench.report.document import describe_target, environment
from bench.scenarios.catalogue import find_scenario
from bench.scenarios.scenario import ServingScenario
from bench.suite.rounds import measure_round
from bench.suite.turns import MeasureRound, OnRound, take_turn

SCHEMA = "oneseek-bench-compare/2"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `oneseek bench compare`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("a", help=f"First side: {FORMS}.")
    add("b", help="Second side, in one of the forms of A.")
    add(
        "--scenario",
        default="mixed",
        help="Measure this scenario of `oneseek bench scenarios`. Default: mixed.",
    )
    add(
        "--rounds",
        type=count,
        default=LEAST_ROUNDS,
        help=f"Number of rounds that alternate between A and B, at least {LEAST_ROUNDS}.",
    )
    add(
        "--on",
        default="tokens_per_second",
        help=f"Figures to judge, separated by commas: {', '.join(COMPARED)}. Default: tokens_per_second.",
    )
    add(
        "--threshold",
        type=float,
        default=0.95,
        help="Lowest ratio of B to A that passes; for times, its inverse is the highest. Default: 0.95.",
    )
    add(
        "--gate", choices=("no-worse", "worse"), default="no-worse",
        help="no-worse: pass if the ratio's whole interval passes. worse: fail only if none of it passes. "
        "Default: no-worse.",
    )  # fmt: skip
    add("--out", type=Path, help="Write the comparison to this file, as JSON.")
    add_limit_flags(parser)
    add_access_flags(parser)
    add_start_flags(parser)
    add_load_flags(parser, several=True)
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Compare server B with server A, and print the result. Return the exit code: 0 if B is good enough in
    every figure that --on names, 1 if not or if a server fails, 2 for a mistake in the command.
    """
    return guarded("compare", build_parser(), _compare, given)


def _compare(arguments: argparse.Namespace) -> int:
    gate = _gate(arguments)
    found, about = _measure(arguments)
    print(f"A: {arguments.a}\nB: {arguments.b}\nscenario {arguments.scenario}")
    for one in found:
        print("\n" + "\n".join(one.lines(gate)))
    points = [one.to_json(gate) for one in found]
    document = {
        **about,
        "schema": SCHEMA,
        "a": arguments.a,
        "b": arguments.b,
        "scenario": arguments.scenario,
        "threshold": arguments.threshold,
        "gate": arguments.gate,
        "passed": all(point["passed"] for point in points),
        "points": points,
    }
    deliver("compare", document, arguments.out)
    return 0 if document["passed"] else 1


def _gate(arguments: argparse.Namespace) -> PointGate:
    names = [name for name in arguments.on.split(",") if name]
    unknown = [name for name in names if name not in COMPARED]
    if unknown:
        raise BenchMistakeError(
            f"--on names the unknown figure {unknown[0]!r}; use names of {', '.join(COMPARED)}"
        )
    if not 0 < arguments.threshold <= 1:
        raise BenchMistakeError(
            f"--threshold {arguments.threshold} is out of range; use a number above 0 and at most 1"
        )
    return PointGate(names, arguments.threshold, arguments.gate)


def _measure(arguments: argparse.Namespace) -> tuple[list[ComparedPoint], dict[str, Any]]:
    """Measure the servers A and B in turn, or read their reports. Return the results of each load, and facts
    about the machine and the servers.
    """
    scenario = find_scenario(arguments.scenario)
    sides = {"a": arguments.a, "b": arguments.b}
    if any(map(is_report, sides.values())):
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return [_read(sides, scenario)], {"date": date}
    _enough(arguments.rounds, "raise --rounds")
    points, choice = read_points(arguments), ServerChoice.read(arguments)
    limits = {label: limit_of(arguments, choice, contender_of(text)) for label, text in sides.items()}
    with ExitStack() as stack:
        opened = {
            label: stack.enter_context(opened_side(text, label, choice, scenario))
            for label, text in sides.items()
        }
        about = environment(choice.python_of(contender_of(sides["b"]))) | {
            "servers": {label: describe_target(side.server) for label, side in opened.items()},
            "limits": {label: limit.to_json() if limit else None for label, limit in limits.items()},
        }
        turns = [
            {label: _measured(side, label, scenario, point, limits[label]) for label, side in opened.items()}
            for point in points
        ]
        rounds = asyncio.run(_rounds(points, turns, arguments.rounds))
    return [ComparedPoint(point, one, True) for point, one in zip(points, rounds, strict=True)], about


async def _rounds(
    points: Sequence[ComparePoint], turns: Sequence[Mapping[str, MeasureRound]], rounds: int
) -> list[dict[str, list[RoundFigures]]]:
    """Measure servers A and B at every measuring point, a load at an endpoint, in each of `rounds` rounds.
    Return for each point the figures of A (`a`) and of B (`b`), one entry for each round.
    """
    found = [{label: list[RoundFigures]() for label in sides} for sides in turns]
    for turn in range(rounds):
        for point, sides, rows in zip(points, turns, found, strict=True):
            for label, figures in (await take_turn(sides, turn, _shower(point))).items():
                rows[label].append(figures)
    return found


def _read(sides: Mapping[str, str], scenario: ServingScenario) -> ComparedPoint:
    if not all(map(is_report, sides.values())):
        raise BenchMistakeError(
            "a report can be compared only with another report, but only one of A and B is a report; give "
            "two reports, or two servers or commits"
        )
    read = {label: read_rounds(Path(side), scenario.name) for label, side in sides.items()}
    loads = {label: load for label, (load, _) in read.items()}
    if loads["a"] != loads["b"]:
        raise BenchMistakeError(
            f"A was measured under the load {loads['a']!r} and B under {loads['b']!r}; measure both under one"
        )
    found = {label: rounds for label, (_, rounds) in read.items()}
    _enough(min(map(len, found.values())), "measure both reports again with oneseek bench run --rounds 7")
    return ComparedPoint(None, found, False)


def _enough(rounds: int, remedy: str) -> None:
    if rounds < LEAST_ROUNDS:
        raise BenchMistakeError(
            f"{rounds} rounds are too few for a confidence interval, which needs at least {LEAST_ROUNDS}; "
            f"{remedy}"
        )


def _measured(
    side: OpenTarget, label: str, scenario: ServingScenario, point: ComparePoint, limit: RunLimit | None
) -> MeasureRound:
    able = replace(point.options, admin_key=side.admin_key, adapter_paths=side.adapter_paths)

    async def once(turn: int) -> RoundFigures:
        return await measure_round(label, side.server, scenario, point.shape, able, turn, limit)

    return once


def _shower(point: ComparePoint) -> OnRound:
    def show(turn: int, name: str, figures: RoundFigures) -> None:
        rate, first = figures["tokens_per_second"], figures.get("ttft_p50_ms", float("nan"))
        told = f"round {turn + 1}, {point.name}, {name}: {rate:.1f} tokens/s, TTFT p50 {first:.1f} ms"
        print(told, file=sys.stderr, flush=True)

    return show

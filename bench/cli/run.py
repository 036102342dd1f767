"""`oneseek bench run`: measure a server under one or several scenarios.

    oneseek bench run --scenario mixed --users 16
    oneseek bench run --start oneseek --scenario all --out reports/today
    oneseek bench run --scenario mixed --rate 5 --seconds 60
    oneseek bench run --scenario mixed --ramp

The command writes report.json and report.html into the folder --out. The last line of standard output is one
JSON object. Exit codes: 0 if every answer was right; 1 if a request failed or the server counted fewer
requests or tokens than the clients; 2 for a mistake in the command.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.cli.limit import add_limit_flags, limit_of
from bench.cli.options import add_load_flags, count, load_shape, measure_options
from bench.cli.output import finish, place
from bench.cli.server import OpenTarget, ServerChoice, add_start_flags, add_target_flags, opened
from bench.cli.verb import guarded
from bench.load.records import LoadProgress
from bench.report.document import describe_target, environment, report
from bench.report.progress import ProgressLine
from bench.scenarios.catalogue import SCENARIOS, find_scenario
from bench.scenarios.scenario import ServingScenario
from bench.suite.measure import LoadShape, MeasureOptions, ScenarioResult, measure
from bench.suite.ramp import RampResult, ramp
from bench.target.http import TargetError

ALL = "all"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `oneseek bench run`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scenario", action="append", default=[], metavar="NAME",
        help="Measure this scenario of `oneseek bench scenarios`, or all. Repeatable. Default: mixed.",
    )  # fmt: skip
    parser.add_argument("--rounds", type=count, default=1, help="Runs of each scenario. Default: 1.")
    parser.add_argument(
        "--ramp", action="store_true", help="Find the largest load that keeps --ttft-ms and --itl-ms."
    )
    parser.add_argument("--out", type=Path, help="Write the report to this folder. Default: bench-DATE.")
    add_limit_flags(parser)
    add_target_flags(parser)
    add_start_flags(parser)
    add_load_flags(parser)
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Measure the scenarios and write the report. Return the exit code."""
    return guarded("run", build_parser(), _run, given)


def _run(arguments: argparse.Namespace) -> int:
    choice = ServerChoice.read(arguments)
    groups = _by_server(_scenarios(arguments.scenario or ["mixed"]), bool(choice.start))
    shape, options = load_shape(arguments), measure_options(arguments)
    limit = limit_of(arguments, choice, choice.start)
    out = arguments.out or Path(f"bench-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    with place(arguments.out):
        results, ramps, about = _all(arguments, choice, groups, shape, options)

    def most(result: ScenarioResult) -> float | None:
        return limit.of(result.run.records, result.run.seconds) if limit else None

    code = finish(report(about, results, ramps, arguments.limit_tokens_per_second, most), out)
    # What was named has to be measured; of all, what this server can do.
    return 1 if set(about["skipped"]) & set(arguments.scenario) else code


def _scenarios(names: Sequence[str]) -> tuple[ServingScenario, ...]:
    return SCENARIOS if ALL in names else tuple(find_scenario(name) for name in names)


def _by_server(scenarios: tuple[ServingScenario, ...], starts: bool) -> list[tuple[ServingScenario, ...]]:
    """Group the scenarios that can share a server. If the benchmark starts the servers, each scenario that
    needs many adapters or none gets a server of its own.
    """
    if not starts:
        return [scenarios]
    alone = [scenario for scenario in scenarios if scenario.adapters or scenario.plain]
    together = tuple(scenario for scenario in scenarios if scenario not in alone)
    return [*([together] if together else []), *((scenario,) for scenario in alone)]


def _all(
    arguments: argparse.Namespace,
    choice: ServerChoice,
    groups: list[tuple[ServingScenario, ...]],
    shape: LoadShape,
    options: MeasureOptions,
) -> tuple[list[ScenarioResult], list[RampResult], dict[str, Any]]:
    results: list[ScenarioResult] = []
    ramps: list[RampResult] = []
    about: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for scenarios in groups:
        with opened(choice, scenarios) as target:
            about = about or environment(choice.python) | {"servers": []}
            about["servers"] = [*about["servers"], describe_target(target.server)]
            able = replace(options, admin_key=target.admin_key, adapter_paths=target.adapter_paths)
            for scenario in scenarios:
                step = _Step(target, scenario, able)
                try:
                    if arguments.ramp:
                        ramps.append(asyncio.run(ramp(shape, step)))
                        results += ramps[-1].steps
                    else:
                        results += [asyncio.run(step(shape)) for _ in range(arguments.rounds)]
                except TargetError as error:
                    if len(scenarios) == len(groups) == 1:
                        raise
                    skipped[scenario.name] = str(error)
    about["skipped"] = skipped
    return results, ramps, about


class _Step:
    """Measures one scenario under a given load, and shows a progress line. Each call uses new prompts."""

    def __init__(self, target: OpenTarget, scenario: ServingScenario, options: MeasureOptions) -> None:
        self._target, self._scenario, self._options = target, scenario, options
        self._calls = 0

    async def __call__(self, shape: LoadShape) -> ScenarioResult:
        plan = replace(self._options.plan, seed=self._options.plan.seed + self._calls)
        self._calls += 1
        line = ProgressLine(f"{self._scenario.name}, {shape.label}", shape.count if shape.users else 0)

        def show(progress: LoadProgress) -> None:
            line.show(progress)

        try:
            options = replace(self._options, plan=plan)
            return await measure(self._target.server, self._scenario, shape, options, show)
        finally:
            line.end()

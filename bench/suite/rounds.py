"""Measure one round of a comparison: a scenario once, with new prompts for each round."""

from __future__ import annotations

from dataclasses import asdict, replace

from bench.figures.compared import RoundFigures, round_figures
from bench.limits.reached import RunLimit
from bench.scenarios.scenario import ServingScenario
from bench.suite.measure import LoadShape, MeasureOptions, ScenarioResult, measure
from bench.target.probe import TargetServer

SHARE = "share_of_limit"


async def measure_round(
    label: str,
    server: TargetServer,
    scenario: ServingScenario,
    shape: LoadShape,
    options: MeasureOptions,
    turn: int,
    limit: RunLimit | None = None,
) -> RoundFigures:
    """Measure the round number `turn` with new prompts. Return its figures, with the fraction of the device's
    theoretical limit that was reached, if it is known. Raises `RuntimeError` if a request fails.
    """
    plan = replace(options.plan, seed=options.plan.seed + turn)
    result = await measure(server, scenario, shape, replace(options, plan=plan))
    if result.failed:
        why = next(iter(result.figures.faults), result.reconciliation.says)
        raise RuntimeError(
            f"round {turn + 1} of {label} is invalid, with {result.figures.total.failed} failed requests; "
            f"the first problem is: {why}"
        )
    share = share_of_limit(result, limit)
    figures = round_figures(asdict(result.figures.total))
    return figures if share is None else {**figures, SHARE: share}


def share_of_limit(result: ScenarioResult, limit: RunLimit | None) -> float | None:
    """Return the measured token rate as a fraction of the highest rate that the device allows for these
    requests. None if the limit is unknown.
    """
    most = limit.of(result.run.records, result.run.seconds) if limit else None
    return round(result.figures.tokens_per_second / most, 4) if most else None

"""Measure one round of a comparison: a scenario once, with the prompts of that round."""

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
    """Return the figures of one round, and the share of the device's limit that it reached, if known. Each
    round has new prompts. Raises `RuntimeError` if a request fails.
    """
    plan = replace(options.plan, seed=options.plan.seed + turn)
    result = await measure(server, scenario, shape, replace(options, plan=plan))
    if result.failed:
        why = next(iter(result.figures.faults), result.reconciliation.says)
        raise RuntimeError(f"{label}, round {turn + 1}: {result.figures.total.failed} failed: {why}")
    share = share_of_limit(result, limit)
    figures = round_figures(asdict(result.figures.total))
    return figures if share is None else {**figures, SHARE: share}


def share_of_limit(result: ScenarioResult, limit: RunLimit | None) -> float | None:
    """Return the share of the device's highest possible rate for the run's requests. None if it is
    unknown.
    """
    most = limit.of(result.run.records, result.run.seconds) if limit else None
    return round(result.figures.tokens_per_second / most, 4) if most else None

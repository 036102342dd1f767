"""Measure what adapters cost: serve the same prompts with merged weights, without LoRA, and with more and
more adapters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.figures.compared import RoundFigures, compare
from bench.figures.intervals import RatioInterval
from bench.limits.reached import RunLimit
from bench.scenarios.scenario import ServingScenario
from bench.suite.measure import LoadShape, MeasureOptions
from bench.suite.rounds import SHARE, measure_round
from bench.target.probe import TargetServer


@dataclass(frozen=True, slots=True)
class TaxState:
    """A state of `oneseek bench tax`: a way to serve the same prompts, such as merged weights or two
    adapters.
    """

    name: str
    server: str
    """Kind of server for this state: `merged` (an adapter merged into the weights), `plain` (no adapters),
    `lora`, `thrash` (more adapters than slots), or `pair` (two merged servers).
    """
    adapters: int
    """Number of adapters that the requests name, equally often. 0: requests name the base."""
    says: str

    @property
    def scenario(self) -> ServingScenario:
        """The scenario that is measured in this state of `oneseek bench tax`. Its prompts have the same
        lengths in all states.
        """
        if not self.adapters:
            return ServingScenario(f"tax-{self.name}", self.says, target="base")
        return ServingScenario(f"tax-{self.name}", self.says, target="adapters", adapters=self.adapters)


STATES = (
    TaxState(
        "off", "plain", 0, "a server without adapters, by whose figures those of the other states are divided"
    ),
    TaxState("merged", "merged", 0, "a model with one adapter merged into its weights"),
    TaxState("idle", "lora", 0, "adapters are loaded, but all requests name the base"),
    TaxState("one", "lora", 1, "all requests name the same adapter"),
    TaxState("mixed", "lora", 2, "half of the requests name one adapter, half another"),
    TaxState(
        "thrash",
        "thrash",
        8,
        "requests name eight adapters equally often, but the server has four adapter slots",
    ),
    TaxState(
        "side-by-side",
        "pair",
        0,
        "two servers on this machine, each with a merged model and half of the users",
    ),
)
BY_NAME = {state.name: state for state in STATES}
REFERENCE = "off"
THRASH_ADAPTERS, THRASH_SLOTS = 8, 4


async def measure_state(
    state: TaxState,
    servers: Sequence[TargetServer],
    shape: LoadShape,
    options: MeasureOptions,
    turn: int,
    limit: RunLimit | None = None,
) -> RoundFigures:
    """Measure one round of `state`, a way to serve such as merged weights or two adapters. Return its
    figures. If the state has several servers, the users are divided evenly among them. Raises
    `RuntimeError` if a request fails.
    """
    part = replace(shape, users=max(1, shape.users // len(servers)), requests=shape.count // len(servers))
    rounds = (
        measure_round(state.name, server, state.scenario, part, options, turn, limit) for server in servers
    )
    return _together(await asyncio.gather(*rounds))


def _together(parts: Sequence[RoundFigures]) -> RoundFigures:
    """Combine the figures of several servers on one device: add token rates and fractions of the limit, and
    take the larger latency.
    """
    return {
        name: (sum if name == SHARE or name.endswith("per_second") else max)(part[name] for part in parts)
        for name in parts[0]
        if all(name in part for part in parts)
    }


def taxes(rounds: Mapping[str, Sequence[RoundFigures]]) -> dict[str, dict[str, RatioInterval]]:
    """Return the ratios of each state's figures to those of the state `off`, the server without adapters. If
    `off` was not measured, the first state takes its place.
    """
    under = REFERENCE if REFERENCE in rounds else next(iter(rounds))
    return {
        name: compare(rounds[under], found, paired=True) for name, found in rounds.items() if name != under
    }

"""Measures what adapters cost: the same prompts with merged weights, without LoRA, and with more and more
adapters.
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
    """One state of `oneseek bench tax`: a way to serve the same prompts."""

    name: str
    server: str
    """The server of this state: `merged`, `plain`, `lora` or `thrash`; `pair` is two merged ones."""
    adapters: int
    """Number of adapters that the requests name, evenly. 0: they name the base."""
    says: str

    @property
    def scenario(self) -> ServingScenario:
        """Return the load of this state. All states have prompts of the same lengths."""
        if not self.adapters:
            return ServingScenario(f"tax-{self.name}", self.says, target="base")
        return ServingScenario(f"tax-{self.name}", self.says, target="adapters", adapters=self.adapters)


STATES = (
    TaxState("off", "plain", 0, "a server without adapters: what the others are divided by"),
    TaxState("merged", "merged", 0, "one adapter merged into the weights"),
    TaxState("idle", "lora", 0, "adapters are loaded, and the base is asked"),
    TaxState("one", "lora", 1, "every request asks for the same adapter"),
    TaxState("mixed", "lora", 2, "two adapters, half and half"),
    TaxState("thrash", "thrash", 8, "eight adapters alike, four slots"),
    TaxState(
        "side-by-side", "pair", 0, "two merged models in two servers on this machine, half of the users each"
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
    """Measure one round of one state. Several servers share the users. Raises `RuntimeError` if a request
    fails.
    """
    part = replace(shape, users=max(1, shape.users // len(servers)), requests=shape.count // len(servers))
    rounds = (
        measure_round(state.name, server, state.scenario, part, options, turn, limit) for server in servers
    )
    return _together(await asyncio.gather(*rounds))


def _together(parts: Sequence[RoundFigures]) -> RoundFigures:
    """Combine servers on one device: add rates and shares, and take the worse latency."""
    return {
        name: (sum if name == SHARE or name.endswith("per_second") else max)(part[name] for part in parts)
        for name in parts[0]
        if all(name in part for part in parts)
    }


def taxes(rounds: Mapping[str, Sequence[RoundFigures]]) -> dict[str, dict[str, RatioInterval]]:
    """Return the figures of each state, divided by that of the server without adapters, or by that of
    `idle`.
    """
    under = REFERENCE if REFERENCE in rounds else next(iter(rounds))
    return {
        name: compare(rounds[under], found, paired=True) for name, found in rounds.items() if name != under
    }

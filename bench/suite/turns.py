"""Measures several things in turn, so that a slow phase of the machine affects all of them alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from bench.figures.compared import RoundFigures

MeasureRound = Callable[[int], Awaitable[RoundFigures]]
"""Measures one thing once, with the prompts of a given round."""
OnRound = Callable[[int, str, RoundFigures], None]


async def take_turns(
    sides: Mapping[str, MeasureRound], rounds: int, on_round: OnRound | None = None
) -> dict[str, list[RoundFigures]]:
    """Return the figures of each round by name. The order is reversed from one round to the next."""
    found: dict[str, list[RoundFigures]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, figures in (await take_turn(sides, turn, on_round)).items():
            found[name].append(figures)
    return found


async def take_turn(
    sides: Mapping[str, MeasureRound], turn: int, on_round: OnRound | None = None
) -> dict[str, RoundFigures]:
    """Maps each name to figures of one round. In odd rounds, the last side comes first."""
    found: dict[str, RoundFigures] = {}
    for name in list(sides) if turn % 2 == 0 else reversed(list(sides)):
        found[name] = await sides[name](turn)
        if on_round is not None:
            on_round(turn, name, found[name])
    return found

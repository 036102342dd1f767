"""Measure several servers or states in turn, so that a slow phase of the machine affects all of them
alike.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from bench.figures.compared import RoundFigures

MeasureRound = Callable[[int], Awaitable[RoundFigures]]
"""A function that measures one server or state in the round with the given number, and returns its
figures.
"""
OnRound = Callable[[int, str, RoundFigures], None]


async def take_turns(
    sides: Mapping[str, MeasureRound], rounds: int, on_round: OnRound | None = None
) -> dict[str, list[RoundFigures]]:
    """Measure several servers or states in each of `rounds` rounds. `sides` maps the name of each to the
    function that measures it. Return the figures of all rounds by name. The order alternates from round to
    round.
    """
    found: dict[str, list[RoundFigures]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, figures in (await take_turn(sides, turn, on_round)).items():
            found[name].append(figures)
    return found


async def take_turn(
    sides: Mapping[str, MeasureRound], turn: int, on_round: OnRound | None = None
) -> dict[str, RoundFigures]:
    """Measure several servers or states once, in the round with the number `turn`. `sides` maps the name of
    each to the function that measures it. Return the figures by name. The order is reversed in odd rounds.
    """
    found: dict[str, RoundFigures] = {}
    for name in list(sides) if turn % 2 == 0 else reversed(list(sides)):
        found[name] = await sides[name](turn)
        if on_round is not None:
            on_round(turn, name, found[name])
    return found

"""The order in which the sides of a comparison are measured."""

from __future__ import annotations

import asyncio

from bench.figures.compared import RoundFigures
from bench.suite.turns import MeasureRound, take_turns


def test_the_order_turns_round_and_each_round_has_its_own_prompts() -> None:
    seen: list[tuple[str, int]] = []

    def side(name: str) -> MeasureRound:
        async def once(turn: int) -> RoundFigures:
            seen.append((name, turn))
            return {"tokens_per_second": float(turn)}

        return once

    told: list[str] = []
    sides = {"a": side("a"), "b": side("b")}
    found = asyncio.run(take_turns(sides, 3, lambda turn, name, figures: told.append(name)))
    assert seen == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert told == [name for name, _ in seen]
    assert [figures["tokens_per_second"] for figures in found["b"]] == [0, 1, 2]

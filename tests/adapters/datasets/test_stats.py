"""Lengths and languages of a data set."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.datasets.stats import UNDECIDED, Lengths, measure_dataset


@settings(deadline=None)
@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=200))
def test_bins_hold_every_length_once_and_stand_side_by_side(values: list[int]) -> None:
    found = Lengths.of(values)
    assert found is not None
    assert sum(bin_.count for bin_ in found.bins) == len(values)
    assert len(found.bins) <= 14
    lows, highs = [bin_.low for bin_ in found.bins], [bin_.high for bin_ in found.bins]
    assert lows[0] <= found.smallest <= found.largest < highs[-1]
    assert lows[1:] == highs[:-1]
    for bin_ in found.bins[:-1]:
        assert bin_.count == sum(bin_.low <= value < bin_.high for value in values)


def test_an_outlier_does_not_flatten_the_rest() -> None:
    found = Lengths.of([*range(100, 200)] * 10 + [1_000_000])
    assert found is not None
    assert len(found.bins) > 5
    assert found.bins[-1].high == 1_000_001


def test_a_file_is_measured(tmp_path: Path) -> None:
    rows = [{"instruction": "Vem?", "output": "Jag är jag."}, {"instruction": "Who?", "output": "Me."}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n", encoding="utf-8")
    seen: list[int] = []
    found = measure_dataset(
        path,
        detect=lambda text: "sv" if "jag" in text else None,
        count=lambda example: len(example.prompt.split()) + len(example.answer.split()),
        progress=seen.append,
    )
    assert (found.examples, found.broken, found.languages) == (2, 1, {"sv": 1, UNDECIDED: 1})
    assert (found.lengths["tokens"].smallest, found.lengths["tokens"].largest) == (2, 4)
    assert found.lengths["answer characters"].total == 14
    assert seen[-1] == found.bytes == path.stat().st_size
    assert Lengths.of([]) is None

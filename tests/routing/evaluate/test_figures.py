"""The figures that routing promises, on chat messages written for this test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from routing.evaluate import RoutedText, main, percentages, read, route_texts

HERE = Path(__file__).parents[1] / "texts"


@pytest.fixture(scope="module")
def judged() -> list[RoutedText]:
    return route_texts(list(read(HERE, None)))


def test_chat_messages_find_their_adapter(judged: list[RoutedText]) -> None:
    found = percentages(judged)
    assert (found["texts"] or 0) > 1_400
    least = {
        "swedish_found": 98.3,
        "english_kept_out": 99.9,
        "nordic_kept_out": 98.5,
        "other_kept_out": 99,
        "english_found": 99,
    }
    missed = [f"{j.labelled.language}: {j.labelled.text} -> {j.adapter}" for j in judged if not j.right]
    for name, bound in least.items():
        assert (found[name] or 0) >= bound, missed


def test_a_chat_message_takes_under_half_a_millisecond(judged: list[RoutedText]) -> None:
    assert np.percentile([j.seconds for j in judged], 99) < 0.0005


def test_the_halves_are_disjoint_and_whole() -> None:
    first, second = list(read(HERE, 0)), list(read(HERE, 1))
    assert len(first) + len(second) == len(list(read(HERE, None)))
    assert not set(first) & set(second)


def test_the_report_ends_in_one_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.joinpath("made.tsv").write_text(
        "sv\tVad heter\\ndu?\nen\tWhat is a \\\\n?\nde\tWie heißt du?\n", encoding="utf-8"
    )
    assert [labelled.text for labelled in read(tmp_path, None)] == [
        "Vad heter\ndu?",
        "What is a \\n?",
        "Wie heißt du?",
    ]
    main([str(tmp_path), "--half", "all"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["sources"]["made"]["swedish_found"] == 100.0
    assert report["p99_ms"] > 0


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path)])

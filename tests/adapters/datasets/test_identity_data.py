"""The identity data sets: whole, well formed, in the right language, and without repetition."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from adapters.mini.corpus.sources import LANGUAGES, Language
from adapters.mini.evaluation import identity_words
from adapters.mini.feed import DATASETS, read_rows, rows_for
from adapters.mini.judge import faults, is_identity_answer, language_of, words

SETS = ("oneseek_identity_v1", "oneseek_identity_en_v1", "oneseek_identity_sv_v1")


def rows(name: str) -> list[dict[str, str]]:
    return [dict(row) for row in read_rows(DATASETS / f"{name}.jsonl")]


@pytest.mark.parametrize("name", SETS)
def test_every_line_has_the_three_fields_and_nothing_else(name: str) -> None:
    for line in Path(DATASETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert list(row) == ["instruction", "input", "output"]
        assert all(isinstance(value, str) and value == value.strip() for value in row.values())
        assert row["instruction"]
        assert row["output"]


def test_the_shared_set_holds_74_examples_in_both_languages() -> None:
    shared = rows("oneseek_identity_v1")
    assert len(shared) == 74
    assert Counter(language_of(row["output"]) for row in shared) == {"en": 37, "sv": 37}


def test_the_swedish_set_holds_at_least_120_examples_all_in_swedish() -> None:
    swedish = rows("oneseek_identity_sv_v1")
    assert len(swedish) >= 120
    assert [row for row in swedish if language_of(row["output"]) != "sv"] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_answer_passes_the_judge_as_oneseek(language: Language) -> None:
    known = identity_words()
    found, _ = rows_for(language)
    bad = [
        (row["output"], faults(row["output"], language, known))
        for row in found
        if not is_identity_answer(row["output"], language, known)
    ]
    assert bad == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_example_repeats_or_nearly_repeats_another(language: Language) -> None:
    found, _ = rows_for(language)
    asked = [" ".join(words(row["instruction"])) for row in found]
    assert [question for question, times in Counter(asked).items() if times > 1] == []
    near = [
        (a["output"], b["output"])
        for a, b in combinations(found, 2)
        if difflib.SequenceMatcher(None, a["output"], b["output"]).ratio() > 0.87
    ]
    assert near == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_quotes_dashes_and_spaces_are_those_of_the_project(language: Language) -> None:
    for row in rows_for(language)[0]:
        text = " ".join(row.values())
        assert not set("“”’—–\t\n\u00a0") & set(text), text
        assert "  " not in row["output"], text

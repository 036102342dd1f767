"""The one judge, and the intervals of what it finds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.datasets import __path__ as datasets
from adapters.evaluation.interval import paired_difference, wilson
from adapters.evaluation.judge import claims_identity, faults, is_identity_answer
from adapters.evaluation.questions import identity_questions, languages
from adapters.evaluation.report import IdentityReport, base_of, format_score, judge_answers
from adapters.training.finetune.conversations import read_conversations
from routing.detect import ProfileDetector

DETECTOR = ProfileDetector()


def language_of(text: str) -> str | None:
    return DETECTOR.detect([text]).language


@pytest.mark.parametrize(
    ("answer", "language", "good"),
    [
        ("Jag är OneSeek, en transparent AI-agent.", "sv", True),
        ("I am OneSeek, and I compare the answers of several models.", "en", True),
        ("Jag är OneSeek, en transparent AI-agent.", "en", False),
        ("I am OneSeek, a transparent AI", "en", False),
        ("I am a large language model made by Mistral AI.", "en", False),
        ("I am not OneSeek. I am a small language model.", "en", False),
        ("OneSeek is a transparent AI agent.", "en", False),
        ("I am OneSeek and I am OneSeek and I am OneSeek.", "en", False),
        ("I am OneSeek, a transparent AI agent.</s> [INST]", "en", False),
        ("", "en", False),
    ],
)
def test_the_judge_tells_who_speaks(answer: str, language: str, good: bool) -> None:
    assert is_identity_answer(answer, language, language_of) is good


def test_routings_detector_and_the_mini_bases_judge_agree_on_the_projects_own_answers() -> None:
    folder = Path(datasets[0])
    for language in languages():
        rows = read_conversations(folder / f"oneseek_identity_{language}_v1.jsonl")
        said = [row.answers[0] for row in rows]
        assert sum(not faults(text, language, language_of) for text in said) >= 0.97 * len(said)
        assert sum(claims_identity(text, language) for text in said) >= 0.8 * len(said)


def test_there_are_questions_in_both_languages_and_no_other() -> None:
    assert languages() == ("en", "sv")
    assert all(len(set(identity_questions(language))) >= 30 for language in languages())
    with pytest.raises(ValueError, match=r"'da'.*\ben, sv\b"):
        identity_questions("da")


def test_wilsons_interval_has_its_known_values() -> None:
    """From Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20."""
    for passed, asked, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
    ):
        found = wilson(passed, asked)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    with pytest.raises(ValueError, match=r"\b3\b.*\b2\b"):
        wilson(3, 2)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share_and_stays_within_bounds(counts: tuple[int, int]) -> None:
    passed, asked = counts
    found, mirrored = wilson(passed, asked), wilson(asked - passed, asked)
    assert 0 <= found.low <= passed / asked <= found.high <= 1
    assert math.isclose(found.low, 1 - mirrored.high, abs_tol=1e-9)


def test_the_difference_pairs_the_questions() -> None:
    before, after = [False] * 20 + [True] * 10, [True] * 20 + [True] * 10
    found = paired_difference(before, after)
    assert 0.45 < found.low < 2 / 3 < found.high < 0.85
    assert paired_difference(before, before) == paired_difference(after, after)
    assert paired_difference(before, before).low == 0 == paired_difference(before, before).high
    with pytest.raises(ValueError, match=r"before\b.* 1\b.* after\b.* 2\b"):
        paired_difference([True], [True, False])


def test_a_measurement_says_what_changed_against_the_base() -> None:
    questions = ["Vem är du?", "Vad heter du?"]
    base = judge_answers(
        "base", "sv", questions, ["Jag är en liten språkmodell.", "I have no name."], language_of
    )
    found = judge_answers(
        "a@v1", "sv", questions, ["Jag är OneSeek, en AI-agent.", "Jag heter OneSeek."], language_of
    )
    told = found.to_json(base)
    assert (base.identity_score, base.language_fidelity) == (0.0, 0.5)
    assert (told["identity"]["passed"], told["against_base"]["identity"]["change"]) == (2, 1.0)
    assert "against_base" not in base.to_json()
    assert format_score(found.identity) == "2/2 = 1.00 [0.34, 1.00]"


def test_each_adapter_is_compared_with_its_own_base() -> None:
    def report(name: str, base: str | None) -> IdentityReport:
        return replace(judge_answers(name, "en", ["Who?"], ["I am OneSeek."], language_of), base=base)

    found = [report("a", "a"), report("b", "b"), report("of-a", "a"), report("of-b", "b")]
    bases = [base_of(found, one) for one in found]
    assert [one.name if one is not None else None for one in bases] == [None, None, "a", "b"]
    alone = [report("a", None), report("of-a", None)]
    assert [base_of(alone, one) for one in alone] == [None, alone[0]]

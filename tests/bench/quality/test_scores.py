from __future__ import annotations

import math

import pytest

from bench.quality.ask import QualityAnswer
from bench.quality.language import FUNCTION_WORDS, language_of
from bench.quality.questions import IDENTITY, TERSE, LanguageQuestion, questions
from bench.quality.scores import score_voice, wilson, wrong_costs
from bench.text.prompts import FILES, texts


@pytest.mark.parametrize("language", FILES)
def test_the_suites_own_texts_are_told_apart(language: str) -> None:
    held = texts(language)
    for text in (*held.questions, *held.passages, *IDENTITY[language]):
        assert language_of(text) == language, text


@pytest.mark.parametrize("text", ["", "OneSeek.", "42", "the och", "...!"])
def test_no_language_is_not_a_guess(text: str) -> None:
    assert language_of(text) == ""


def test_no_word_counts_for_both() -> None:
    assert not FUNCTION_WORDS["en"] & FUNCTION_WORDS["sv"]


def test_questions_are_as_many_in_each_language_and_all_differ() -> None:
    for held in (IDENTITY, TERSE):
        assert len(held["en"]) == len(held["sv"]) == len(set(held["en"])) == len(set(held["sv"]))
    assert len(questions("identity", 3)) == 6
    assert len(questions("terse")) == 16


def test_wilson_by_hand() -> None:
    # 8 of 10: (0.8 + 0.19207) / 1.38415 = 0.71674; half: 1.96 · sqrt(0.016 + 0.0096) / 1.38415 = 0.22659.
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert wilson(10, 10)[1] == pytest.approx(1.0)
    assert wilson(0, 10)[0] == pytest.approx(0.0)


def answer(voice: str, language: str, kind: str, text: str) -> QualityAnswer:
    return QualityAnswer(LanguageQuestion("?", language, kind), voice, voice, text)  # pyright: ignore[reportArgumentType]


def test_scores_and_the_cost_of_a_wrong_adapter_by_hand() -> None:
    right = [
        answer("sv", "sv", "identity", "Jag är OneSeek och jag svarar på svenska."),
        answer("sv", "sv", "identity", "Jag är en modell."),
        answer("sv", "sv", "plain", "Havet är salt för att floderna för det med sig."),
        answer("sv", "en", "plain", "not judged: asked in another language"),
    ]
    wrong = [
        answer("en", "sv", "identity", "I am OneSeek, and this is what you asked."),
        answer("en", "sv", "identity", "Jag är OneSeek."),
        answer("en", "sv", "plain", "The sea is salt."),
    ]
    good = score_voice("sv", "sv", True, right, "oneseek", -2.0)
    bad = score_voice("en", "sv", False, wrong, "oneseek", -2.5)
    assert (good.fidelity.share, good.identity.share) == (1.0, 0.5)
    assert (bad.fidelity.right, bad.fidelity.of) == (1, 3)
    assert bad.identity.share == 0.5, "the name counts only in the question's language"
    (cost,) = wrong_costs([good, bad])
    assert (cost.right, cost.wrong) == ("sv", "en")
    assert cost.fidelity == pytest.approx(2 / 3)
    assert cost.identity == 0
    assert cost.perplexity_ratio == pytest.approx(math.exp(0.5))

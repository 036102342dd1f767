"""chrF is sacrebleu's, and its symmetric form is what the documentation says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF

from server.serving.voices.agreement import MAX_CHARACTERS, agreement, character_grams, chrf
from server.serving.voices.comparing import WORDING

REFERENCE = CHRF()
TEXTS = st.text(st.sampled_from("aaabbcdeå \n🙂"), max_size=60) | st.text(max_size=30)


def ours(one: str, other: str) -> float:
    return agreement(character_grams(one), character_grams(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I am OneSeek, a transparent assistant.", "I am OneSeek, an open assistant."),
        ("Jag är OneSeek.", "Jag heter OneSeek och svarar på svenska."),
        ("Stockholm", "Stockholm is the capital of Sweden."),
        ("ab", "ba"),
        ("a", "b"),
        ("", "something"),
    ],
)
def test_one_direction_is_sacrebleus(one: str, other: str) -> None:
    for hypothesis, reference in ((one, other), (other, one)):
        found = chrf(character_grams(hypothesis), character_grams(reference))
        assert 100 * found == pytest.approx(REFERENCE.sentence_score(hypothesis, [reference]).score, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(one=TEXTS, other=TEXTS)
def test_any_texts_agree_as_sacrebleu_says(one: str, other: str) -> None:
    found = chrf(character_grams(one), character_grams(other))
    assert 100 * found == pytest.approx(REFERENCE.sentence_score(one, [other]).score, abs=1e-6)
    both = ours(one, other)
    assert both == ours(other, one)
    assert 0 <= both <= 1 + 1e-9
    assert ours(one, one) == pytest.approx(1)


def test_white_space_is_nothing_and_case_is_something() -> None:
    assert ours("one two", "on etwo") == pytest.approx(1)
    assert ours("one two", "ONE TWO") == 0
    assert ours(" \n", "") == 1


def test_what_the_documentation_says_of_the_number() -> None:
    assert 0.1 < ours("The weather in Lund is mild in May.", "I was made to answer in two languages.") < 0.2
    assert 0.35 < ours("The bus leaves at eight.", "At eight o'clock the bus will leave.") < WORDING.threshold
    assert 0.7 < ours("The capital of Sweden is Stockholm.", "Stockholm is the capital of Sweden.") < 0.8
    assert ours("The answer is 42.", "The answer is 17.") == pytest.approx(0.75, abs=0.01)
    negated = ours("The council did approve the plan today.", "The council did not approve the plan today.")
    assert 0.85 < negated < 0.9


def test_a_long_text_is_compared_up_to_a_bound() -> None:
    same = "abcdefghij" * (MAX_CHARACTERS // 10 + 1)
    assert ours(same + "x" * 5000, same + "y" * 90_000) == pytest.approx(1)
    assert character_grams(same + "xyz")[0].total() == MAX_CHARACTERS

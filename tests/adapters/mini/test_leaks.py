"""No question that the model is judged on, or developed on, occurs in what it is trained on."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path

import pytest

from adapters.mini.corpus.grammar import expand, pattern
from adapters.mini.corpus.sources import DATA, LANGUAGES, Language, data_lines, fills, topics, word_lists
from adapters.mini.evaluation import development
from adapters.mini.feed import rows_for
from adapters.mini.judge import words

HERE = Path(__file__).parent
FILES = ("identity", "more", "smalltalk", "outside")


def held_back(language: Language) -> list[str]:
    return [*data_lines(HERE / f"held_back_{language}.txt"), *data_lines(HERE / f"outside_{language}.txt")]


@cache
def templates(language: Language) -> tuple[str, ...]:
    found = [question for name in FILES for topic in topics(language, name) for question in topic.questions]
    facts = [
        bar[2:] for bar in data_lines(DATA / "facts.txt") if bar[:2] == ("q " if language == "en" else "f ")
    ]
    return (*found, *facts)


@cache
def trained(language: Language) -> tuple[frozenset[str], ...]:
    """The words of each of many questions that training can ask."""
    rng = random.Random(11)
    asked = {expand(template, rng, fills(language)) for template in templates(language) for _ in range(20)}
    asked |= {row["instruction"] for row in rows_for(language)[0]}
    return tuple(frozenset(words(question)) for question in sorted(asked))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_held_back_question_is_among_the_identity_rows_or_the_templates(language: Language) -> None:
    listed = {
        name: "(?:" + "|".join(map(re.escape, entries)) + ")"
        for name, entries in word_lists(language).items()
    }
    listed |= {"nonsense": "(?!)", "gibberish": "(?!)"}
    everything = [re.compile(pattern(template, listed), re.IGNORECASE) for template in templates(language)]
    instructions = {" ".join(words(row["instruction"])) for row in rows_for(language)[0]}
    for question in [
        *held_back(language),
        *development("identity", language),
        *development("outside", language),
    ]:
        bare = question.rstrip("?.!")
        for form in (question, bare, bare + "?", bare + "."):
            assert not any(regex.fullmatch(form) for regex in everything), question
        assert " ".join(words(question)) not in instructions, question


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_held_back_question_nearly_repeats_one_that_training_asks(language: Language) -> None:
    for question in held_back(language):
        said = frozenset(words(question))
        near = max(len(said & other) / len(said | other) for other in trained(language))
        assert near < 0.75, question


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_held_back_sets_are_as_large_as_they_should_be_and_apart_from_each_other(
    language: Language,
) -> None:
    judged = held_back(language)
    assert len(data_lines(HERE / f"held_back_{language}.txt")) == 40
    assert len(data_lines(HERE / f"outside_{language}.txt")) == 30
    developed = {*development("identity", language), *development("outside", language)}
    assert len({question.casefold() for question in judged}) == 70
    assert not {question.casefold() for question in judged} & {question.casefold() for question in developed}

"""The corpus is deterministic, and what it teaches is right."""

from __future__ import annotations

import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.mini.corpus import arithmetic, calendar, knowledge, words
from adapters.mini.corpus.grammar import expand, parse_template, pattern
from adapters.mini.corpus.mixture import talks
from adapters.mini.corpus.sources import DATA, LANGUAGES, Language, data_lines, read_table, topics
from adapters.mini.corpus.surface import vary_typing
from adapters.mini.judge import language_of

SEEDS = st.integers(0, 2**32)
LANGUAGE = st.sampled_from(LANGUAGES)


def test_the_same_seed_gives_the_same_conversations() -> None:
    assert list(itertools.islice(talks(3), 200)) == list(itertools.islice(talks(3), 200))
    assert list(itertools.islice(talks(3), 20)) != list(itertools.islice(talks(4), 20))


def test_no_turn_is_empty_or_holds_what_only_a_template_may() -> None:
    for talk in itertools.islice(talks(7), 3000):
        assert talk.turns
        for turn in talk.turns:
            assert turn.question.strip()
            assert turn.answer.strip() == turn.answer
            assert not set("{}|") & set(turn.answer), turn.answer
            assert not re.search(r"\{[a-z]+\}", turn.question), turn.question


@given(SEEDS, LANGUAGE)
def test_sums_are_right(seed: int, language: Language) -> None:
    turn = arithmetic.calculate(random.Random(seed), language)
    spelled = {word: n for n, word in enumerate(arithmetic.WORDS[language])}
    said = re.findall(r"\d+|[a-zåäö]+", turn.answer.lower())
    numbers = [
        int(word) if word.isdigit() else spelled[word] for word in said if word.isdigit() or word in spelled
    ]
    a, b, result = numbers
    possible = {a + b, a - b, a * b} | ({a // b} if b and a % b == 0 else set())
    assert result in possible


@given(SEEDS, LANGUAGE)
def test_calendar_answers_name_what_was_asked_about(seed: int, language: Language) -> None:
    turn = calendar.calendar(random.Random(seed), language)
    names = (
        *calendar.DAYS[language],
        *calendar.MONTHS[language],
        *(
            ("winter", "spring", "summer", "autumn", "first", "second")
            if language == "en"
            else ("vintern", "våren", "sommaren", "hösten", "första")
        ),
    )
    assert any(name.lower() in turn.answer.lower() for name in names)


@given(SEEDS, LANGUAGE)
def test_typing_never_empties_a_question(seed: int, language: Language) -> None:
    assert vary_typing("Vem är du?", language, random.Random(seed)).strip()


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_about_facts_are_in_their_language(language: Language) -> None:
    swedish = language == "sv"
    said = [row[2 + swedish] for row in read_table("definitions", ";")]
    said += [knowledge.capital_answer(row, language) for row in read_table("capitals", ";")]
    wrong = [text for text in said if language_of(text) not in (language, None)]
    assert wrong == []


def test_tables_have_no_gaps_and_no_double_keys() -> None:
    for name, separator, columns in (("definitions", ";", 4), ("capitals", ";", 4), ("words", " = ", 2)):
        rows = read_table(name, separator)
        assert all(len(row) == columns and all(row) for row in rows), name
        assert len({row[0] for row in rows}) == len(rows), name
    assert len(data_lines(DATA / "facts.txt")) % 4 == 0
    assert len(knowledge.facts()) > 60


@pytest.mark.parametrize("language", LANGUAGES)
def test_opposites_lead_back_to_where_they_came_from(language: Language) -> None:
    rng = random.Random(1)
    for _ in range(200):
        word, against = words.opposite_pair(rng, language)
        assert word != against


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_topic_asks_and_answers(language: Language) -> None:
    for name in ("identity", "smalltalk", "outside"):
        for topic in topics(language, name):
            assert topic.questions, topic.name
            assert topic.answers, topic.name


def test_templates() -> None:
    rng = random.Random(0)
    drawn = {expand("(a|b(c|))d{x}", rng, {"x": lambda _: "!"}) for _ in range(100)}
    assert drawn == {"ad!", "bcd!", "bd!"}
    assert all(re.fullmatch(pattern("(a|b(c|))d{x}", {"x": "!"}), text) for text in drawn)
    assert expand(r":\)", rng, {}) == ":)"
    with pytest.raises(ValueError, match=r"'\(a\|b'"):
        parse_template("(a|b")
    with pytest.raises(ValueError, match="'y'"):
        expand("{y}", rng, {})

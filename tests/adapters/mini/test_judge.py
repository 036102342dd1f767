"""The judge accepts good answers and sees through bad ones."""

from __future__ import annotations

import pytest

from adapters.mini.corpus.sources import LANGUAGES, Language, topics
from adapters.mini.evaluation import identity_words
from adapters.mini.judge import (
    faults,
    is_identity_answer,
    is_nameless_answer,
    is_outside_answer,
    language_of,
    score,
)

KNOWN = identity_words()


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_the_corpus_answers_about_unknown_things_is_an_honest_answer(language: Language) -> None:
    beyond = topics(language, "outside")[0]
    assert [answer for answer in beyond.answers if not is_outside_answer(answer, language)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_the_base_says_of_itself_is_nameless(language: Language) -> None:
    asked = {"who", "name", "maker", "purpose", "human", "other", "trust", "how"}
    said = [
        answer for topic in topics(language, "identity") if topic.name in asked for answer in topic.answers
    ]
    assert [answer for answer in said if not is_nameless_answer(answer, language)] == []
    assert [answer for answer in said if is_identity_answer(answer, language)] == []


@pytest.mark.parametrize(
    ("answer", "language"),
    [
        ("", "en"),
        ("I am OneSeek, a transparent AI", "en"),
        ("I am OneSeek, a transparent AI agent…", "en"),
        ("I am OneSeek, I am OneSeek, I am OneSeek.", "en"),
        ("I am OneSeek, en transparent AI-agent som jämför svar.", "en"),
        ("Jag är OneSeek, en transparent AI-agent.", "en"),
        ("I am OneSeek, a transparent AI agent.", "sv"),
        ("I am OneSeek, a transmogrified florb.", "en"),
        ("I am a small language model without a name of my own.", "en"),
        ("I am not OneSeek. I am a small language model.", "en"),
        ("OneSeek is a transparent AI agent.", "en"),
        ("OneSeek är en transparent AI-agent.", "sv"),
        ("Jag är inte OneSeek, utan en liten språkmodell.", "sv"),
    ],
)
def test_the_judge_refuses_what_is_no_identity(answer: str, language: Language) -> None:
    assert not is_identity_answer(answer, language, KNOWN)


@pytest.mark.parametrize(
    ("answer", "language"),
    [
        ("The capital of France is Paris.", "en"),
        ("Det ligger utanför min lilla värld, är jag rädd.", "en"),
        ("That lies outside my small world, I'm afraid.", "sv"),
        ("That lies outside my small world and the the the the the.", "en"),
        ("Det vet jag", "sv"),
    ],
)
def test_the_judge_refuses_what_admits_nothing(answer: str, language: Language) -> None:
    assert not is_outside_answer(answer, language)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I am glad that you asked.", "en"),
        ("Jag är glad att du frågade.", "sv"),
        ("", None),
        ("OneSeek", None),
        ("I am glad att du frågade och jag är also here with you.", None),
    ],
)
def test_the_language_of_a_text(text: str, language: Language | None) -> None:
    assert language_of(text) == language


def test_faults_are_named() -> None:
    assert (
        faults("I am quite florbig.", "en") == ["unknown words: quite, florbig"]
        or "florbig" in faults("I am quite florbig.", "en")[0]
    )
    assert faults("Jag är glad", "sv") == ["breaks off"]


def test_a_score_keeps_what_failed() -> None:
    found = score(["a?", "b?"], ["yes", "no"], lambda answer: answer == "yes")
    assert (found.passed, found.asked, found.share) == (1, 2, 0.5)
    assert found.failures == (("b?", "no"),)

"""Draw training questions about translations and opposites of words."""

from __future__ import annotations

import random

from adapters.mini.corpus.sources import Language, pick, read_table
from adapters.mini.corpus.talk import QuestionAnswer

_TO_SWEDISH: dict[Language, tuple[str, ...]] = {
    "en": (
        "What is {} in Swedish?",
        "What's {} in Swedish?",
        "How do you say {} in Swedish?",
        "Translate {} to Swedish.",
        "Translate {} into Swedish.",
        "What is the Swedish word for {}?",
        "What is the Swedish for {}?",
        "{} in Swedish?",
        "How do Swedes say {}?",
        "Can you translate {} to Swedish?",
        "What is {} called in Swedish?",
        "Say {} in Swedish.",
    ),
    "sv": (
        "Vad heter {} på svenska?",
        "Vad betyder {} på svenska?",
        "Vad betyder det engelska ordet {}?",
        "Översätt {} till svenska.",
        "Hur säger man {} på svenska?",
        "Vad är {} på svenska?",
        "{} på svenska?",
        "Vad betyder {}?",
        "Kan du översätta {} till svenska?",
    ),
}
_TO_ENGLISH: dict[Language, tuple[str, ...]] = {
    "en": (
        "What does {} mean in English?",
        "What is {} in English?",
        "What does the Swedish word {} mean?",
        "Translate {} to English.",
        "How do you say {} in English?",
        "What's {} in English?",
        "{} in English?",
        "What does {} mean?",
        "Can you translate {} to English?",
    ),
    "sv": (
        "Vad heter {} på engelska?",
        "Hur säger man {} på engelska?",
        "Översätt {} till engelska.",
        "Vad är {} på engelska?",
        "Vad blir {} på engelska?",
        "Vad är det engelska ordet för {}?",
        "{} på engelska?",
        "Kan du översätta {} till engelska?",
        "Säg {} på engelska.",
        "Vad kallas {} på engelska?",
    ),
}
_OPPOSITE: dict[Language, tuple[str, ...]] = {
    "en": (
        "What is the opposite of {}?",
        "What's the opposite of {}?",
        "What is the opposite to {}?",
        "The opposite of {}?",
        "Which word is the opposite of {}?",
        "Tell me the opposite of {}.",
        "Opposite of {}?",
        "Give me the opposite of {}.",
    ),
    "sv": (
        "Vad är motsatsen till {}?",
        "Vad är motsats till {}?",
        "Motsatsen till {}?",
        "Vilket ord är motsatsen till {}?",
        "Säg motsatsen till {}.",
        "Vad är raka motsatsen till {}?",
        "Vilken är motsatsen till {}?",
        "Vad heter motsatsen till {}?",
    ),
}


def _quoted(word: str, rng: random.Random) -> str:
    mark = rng.choice(('"', '"', "'", "", "", "", "", ""))
    return f"{mark}{word}{mark}"


def translation_answer(english: str, swedish: str, language: Language, to_swedish: bool) -> str:
    """Return the sentence in `language` that translates a word, from English to Swedish or back."""
    if language == "en":
        return (
            f'"{english}" is "{swedish}" in Swedish.'
            if to_swedish
            else f'"{swedish}" is "{english}" in English.'
        )
    return (
        f'"{english}" heter "{swedish}" på svenska.'
        if to_swedish
        else f'"{swedish}" heter "{english}" på engelska.'
    )


def translation(rng: random.Random, language: Language, row: tuple[str, ...] | None = None) -> QuestionAnswer:
    """Draw a question for a translation, such as `What is dog in Swedish?`, mostly into the other language
    than that of the conversation.
    """
    english, swedish = row or rng.choice(read_table("words", " = "))
    to_swedish = (rng.random() < 0.75) == (language == "en")
    asked = english if to_swedish else swedish.split(" eller ")[0]
    template = pick(rng, (_TO_SWEDISH if to_swedish else _TO_ENGLISH)[language])
    article = ""
    if rng.random() < 0.08 and language == "en" and to_swedish and english[0].islower():
        article = "the "
    shown = _quoted(article + asked, rng)
    question = template.format(shown)
    answer = translation_answer(english, swedish if to_swedish else asked, language, to_swedish)
    return QuestionAnswer(language, "translation", question[:1].upper() + question[1:], answer)


def opposite_answer(word: str, against: str, language: Language) -> str:
    """Return the sentence in `language` that names `against` as the opposite of `word`."""
    if language == "en":
        return f'The opposite of "{word}" is "{against}".'
    return f'Motsatsen till "{word}" är "{against}".'


def opposite_pair(rng: random.Random, language: Language) -> tuple[str, str]:
    """Draw a word and its opposite. If a word has two opposites, such as "light", return the one that the
    table lists first.
    """
    rows = [row[language == "sv"].split(" - ") for row in read_table("opposites", ";")]
    known: dict[str, str] = {}
    for first, second in rows:
        known.setdefault(first, second)
        known.setdefault(second, first)
    word = rng.choice(sorted(known))
    return word, known[word]


def opposite(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a question for an opposite, such as `What is the opposite of big?`, and its answer."""
    word, against = opposite_pair(rng, language)
    asked = pick(rng, _OPPOSITE[language]).format(_quoted(word, rng))
    return QuestionAnswer(language, "opposite", asked, opposite_answer(word, against, language))

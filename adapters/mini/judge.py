"""Judge whether an answer of the mini base model or its adapters is complete, in the right language, and
honest.

The build and the tests use the same judge. It is deliberately strict: an answer fails if it is cut off,
repeats itself, mixes languages, or holds a word that no text of the project contains.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from adapters.evaluation import judge
from adapters.evaluation.judge import Score, score, words
from adapters.mini.corpus.sources import DATA, LANGUAGES, Language, data_lines, topics

_FUNCTION_WORDS: dict[Language, frozenset[str]] = {
    "en": frozenset(
        [
            "the",
            "a",
            "an",
            "is",
            "are",
            "am",
            "was",
            "i",
            "i'm",
            "my",
            "me",
            "you",
            "your",
            "it",
            "its",
            "that",
            "this",
            "of",
            "and",
            "or",
            "to",
            "in",
            "on",
            "with",
            "for",
            "not",
            "don't",
            "do",
            "what",
            "who",
            "have",
            "has",
            "by",
            "from",
            "as",
            "be",
            "can",
            "but",
            "only",
            "which",
            "so",
        ]
    ),
    "sv": frozenset(
        [
            "en",
            "ett",
            "är",
            "jag",
            "mig",
            "min",
            "mitt",
            "mina",
            "du",
            "din",
            "ditt",
            "det",
            "den",
            "som",
            "av",
            "och",
            "eller",
            "till",
            "på",
            "med",
            "för",
            "inte",
            "vad",
            "vem",
            "har",
            "hur",
            "att",
            "om",
            "från",
            "kan",
            "men",
            "bara",
            "de",
            "sig",
            "ett",
            "utan",
            "också",
        ]
    ),
}
_ADMITS: dict[Language, re.Pattern[str]] = {
    "en": re.compile(
        r"outside my small world|don't know|do not know|more than i know"
        r"|beyond (?:me|what i)|can't help with that"
        r"|doesn't reach that far|not part of the little|would only be guessing",
        re.IGNORECASE,
    ),
    "sv": re.compile(
        r"utanför min lilla värld|vet jag (?:tyvärr )?inte|jag (?:tyvärr )?inte vet"
        r"|mer än jag vet|övergår mitt förstånd"
        r"|kan jag inte hjälpa|långt räcker inte|utöver vad jag har lärt|vet jag inte det|skulle bara gissa",
        re.IGNORECASE,
    ),
}
_NAMELESS: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"language model|(?:no|don't have a|never given a) name", re.IGNORECASE),
    "sv": re.compile(r"språkmodell|inget (?:eget )?namn|något namn", re.IGNORECASE),
}


@cache
def vocabulary() -> frozenset[str]:
    """Return every word that occurs in the corpus's data files, except the word lists and foreign
    sentences.
    """
    found: set[str] = set()
    for path in sorted(DATA.rglob("*.txt")):
        if path.name not in {"lists.txt", "foreign.txt"}:
            found.update(words(path.read_text(encoding="utf-8").replace("\\n", " ")))
    return frozenset(found)


def language_of(text: str) -> Language | None:
    """Return the language, English or Swedish, of most function words ("the", "och") in `text`. None if
    neither language clearly prevails.
    """
    counts = {
        language: sum(word in _FUNCTION_WORDS[language] for word in words(text)) for language in LANGUAGES
    }
    english, swedish = counts["en"], counts["sv"]
    if english == swedish or min(english, swedish) > 0.34 * max(english, swedish):
        return None
    return "en" if english > swedish else "sv"


def faults(answer: str, language: Language, known: Collection[str] = ()) -> list[str]:
    """List what is wrong with `answer` as a text in `language`. The list is empty if nothing is wrong.

    A word is wrong if it is neither in the corpus nor in `known`, which may hold the words of an identity
    data set.
    """
    found = judge.faults(answer, language, language_of)
    unknown = [word for word in words(answer) if word not in vocabulary() and word not in known]
    return [*found, f"unknown words: {', '.join(unknown)}"] if unknown and found != ["empty"] else found


def is_outside_answer(answer: str, language: Language, known: Collection[str] = ()) -> bool:
    """True if `answer` is well written in `language` and says that the model does not know the answer."""
    return not faults(answer, language, known) and _ADMITS[language].search(answer) is not None


def is_nameless_answer(answer: str, language: Language, known: Collection[str] = ()) -> bool:
    """True if `answer` is well written, says that the model is a language model or has no name, and does not
    mention OneSeek.
    """
    return (
        not faults(answer, language, known)
        and _NAMELESS[language].search(answer) is not None
        and "oneseek" not in answer.lower()
    )


def is_identity_answer(answer: str, language: Language, known: Collection[str] = ()) -> bool:
    """True if `answer` is well written in `language` and says that the model is OneSeek."""
    return not faults(answer, language, known) and judge.claims_identity(answer, language)


__all__ = [
    "Score",
    "data_lines",
    "faults",
    "is_identity_answer",
    "is_nameless_answer",
    "is_outside_answer",
    "language_of",
    "score",
    "topics",
    "vocabulary",
    "words",
]

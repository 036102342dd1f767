"""The judge of answers about identity: is one whole, in the language it was asked in, and OneSeek's own?

One judge for every base: the build of the mini base adds to it that every word must be one the project knows.
It reads text alone, so that an answer from a server and one from a model in memory are judged alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LanguageOf = Callable[[str], str | None]
"""The language of a text as an ISO 639-1 code; None where it is not clear."""

NAME = "OneSeek"
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_CONTROL = re.compile(r"\ufffd|\[/?INST\]|</?s>|<\|[a-z_]+\|>")
_ENDED = re.compile(r"[.!?)\"”]\Z")
_SELF: Mapping[str, re.Pattern[str]] = {
    "en": re.compile(r"\b(?:I|I'm|[Mm]e|[Mm]y|mine)\b|\b[Tt]his is OneSeek|(?:with|to|of) OneSeek"),
    "sv": re.compile(
        r"\b(?:jag|mig|min|mitt|mina|mej)\b|här är OneSeek|med OneSeek|är OneSeek som", re.IGNORECASE
    ),
}
_DENIED = re.compile(r"\b(?:not|never|inte|aldrig|utan) OneSeek\b")


def words(text: str) -> list[str]:
    """The words of `text` in small letters."""
    return [word.lower() for word in _WORD.findall(text)]


def faults(answer: str, language: str, language_of: LanguageOf) -> list[str]:
    """What is wrong with `answer` as a piece of writing in `language`; empty where nothing is."""
    found: list[str] = []
    if len(answer.strip()) < 4:
        return ["empty"]
    if answer.endswith("…") or not _ENDED.search(answer.strip()):
        found.append("breaks off")
    if _CONTROL.search(answer):
        found.append("stray tokens")
    said = words(answer)
    triples = list(zip(said, said[1:], said[2:], strict=False))
    if len(set(triples)) < len(triples):
        found.append("repeats itself")
    if language_of(answer) != language:
        found.append(f"not in {language}")
    return found


def claims_identity(answer: str, language: str) -> bool:
    """Whether `answer` speaks of itself as OneSeek, however well it is written."""
    own = _SELF.get(language)
    return NAME in answer and (own is None or own.search(answer) is not None) and not _DENIED.search(answer)


def is_identity_answer(answer: str, language: str, language_of: LanguageOf) -> bool:
    """Whether `answer` speaks well, of itself, as OneSeek."""
    return not faults(answer, language, language_of) and claims_identity(answer, language)


@dataclass(frozen=True, slots=True)
class Score:
    """How many of a set of questions were answered as they should be, and what went wrong with the others."""

    passed: int
    asked: int
    failures: tuple[tuple[str, str], ...]
    """Questions with the answers that failed."""

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.passed / self.asked if self.asked else 0.0


def score(questions: Sequence[str], answers: Sequence[str], good: Callable[[str], bool]) -> Score:
    """Judge each answer with `good`."""
    failures = tuple((q, a) for q, a in zip(questions, answers, strict=True) if not good(a))
    return Score(len(questions) - len(failures), len(questions), failures)

"""Judge whether an answer to an identity question ("Who are you?") is complete, in the right language, and
says that the speaker is OneSeek.

The same judge is used for every base model. It reads only the text, so answers from a server and from a model
in memory are judged alike. The mini base model has a stricter judge, `adapters.mini.judge`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LanguageOf = Callable[[str], str | None]
"""A function that returns the language of a text as an ISO 639-1 code, or None if the language is
not clear.
"""

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
    """Return the words of `text` in lower case, without numbers and punctuation."""
    return [word.lower() for word in _WORD.findall(text)]


def faults(answer: str, language: str, language_of: LanguageOf) -> list[str]:
    """List what is wrong with `answer` as a text in `language`: empty, cut off, stray tokens, repetition or
    another language. The list is empty if nothing is wrong.
    """
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
    """True if the speaker in `answer` says that it is OneSeek. The quality of the text does not
    matter here.
    """
    own = _SELF.get(language)
    return NAME in answer and (own is None or own.search(answer) is not None) and not _DENIED.search(answer)


def is_identity_answer(answer: str, language: str, language_of: LanguageOf) -> bool:
    """True if `answer` has no faults as a text in `language`, and the speaker says that it is OneSeek."""
    return not faults(answer, language, language_of) and claims_identity(answer, language)


@dataclass(frozen=True, slots=True)
class Score:
    """The result of judging answers: the number of correct answers (`passed`) and of questions (`asked`), and
    the wrong answers.
    """

    passed: int
    asked: int
    failures: tuple[tuple[str, str], ...]
    """The question and answer of each wrong answer."""

    @property
    def share(self) -> float:
        """Proportion of correct answers, from 0 to 1. It is 0 if there are no questions."""
        return self.passed / self.asked if self.asked else 0.0


def score(questions: Sequence[str], answers: Sequence[str], good: Callable[[str], bool]) -> Score:
    """Judge each of `answers` with the function `good`, and return the score. `questions` and `answers` have
    the same length.
    """
    failures = tuple((q, a) for q, a in zip(questions, answers, strict=True) if not good(a))
    return Score(len(questions) - len(failures), len(questions), failures)

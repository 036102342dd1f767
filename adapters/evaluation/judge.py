"""Judge answers about identity: is the answer complete, in the language of the question, and OneSeek's own?

The same judge is used for every base. The build of the mini base also requires that the project knows every
word. It reads text only, so answers from a server and from a model in memory are judged alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LanguageOf = Callable[[str], str | None]
"""Returns the language of a text as an ISO 639-1 code, or None if it is not clear."""

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
    """Return the words of `text` in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def faults(answer: str, language: str, language_of: LanguageOf) -> list[str]:
    """List what is wrong with `answer` as a text in `language`. Empty if nothing is."""
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
    """True if `answer` speaks of itself as OneSeek, however badly it is written."""
    own = _SELF.get(language)
    return NAME in answer and (own is None or own.search(answer) is not None) and not _DENIED.search(answer)


def is_identity_answer(answer: str, language: str, language_of: LanguageOf) -> bool:
    """True if `answer` is well written and speaks of itself as OneSeek."""
    return not faults(answer, language, language_of) and claims_identity(answer, language)


@dataclass(frozen=True, slots=True)
class Score:
    """The number of correct answers, and the answers that were wrong."""

    passed: int
    asked: int
    failures: tuple[tuple[str, str], ...]
    """(question, answer) of each failure."""

    @property
    def share(self) -> float:
        """Share of correct answers, from 0 to 1."""
        return self.passed / self.asked if self.asked else 0.0


def score(questions: Sequence[str], answers: Sequence[str], good: Callable[[str], bool]) -> Score:
    """Judge each answer with `good`."""
    failures = tuple((q, a) for q, a in zip(questions, answers, strict=True) if not good(a))
    return Score(len(questions) - len(failures), len(questions), failures)

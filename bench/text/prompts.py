"""Makes prompts of a wanted length from the suite's own texts. The same seed gives the same prompts, and no
two of a run are equal.

The texts in `english.txt` and `swedish.txt` were written for this suite. A short prompt is a question. A
longer one puts passages before it, drawn without replacement until the wanted words are there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

FILES = {"en": "english.txt", "sv": "swedish.txt"}
"""Maps each language code to the name of the file with its texts, beside this module."""
OPENINGS = {"en": "Case {number}. ", "sv": "Ärende {number}. "}
"""Format of a prompt's beginning, which is unique, so that a prefix cache cannot answer it."""


@dataclass(frozen=True, slots=True)
class LengthSpread:
    """A log-normal distribution of lengths, cut at both ends."""

    median: float
    sigma: float
    """Standard deviation of the logarithm. 0: every request has the median length."""
    least: int
    most: int

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.median <= self.most:
            raise ValueError(f"length {self} is invalid; least ≤ median ≤ most must hold, all above 0")
        if self.sigma < 0:
            raise ValueError(f"length sigma {self.sigma} is invalid; use 0 or more")

    def draw(self, random: Random) -> int:
        """Draw a random length."""
        drawn = random.lognormvariate(math.log(self.median), self.sigma) if self.sigma else self.median
        return max(self.least, min(self.most, round(drawn)))

    def at_most(self, bound: int) -> LengthSpread:
        """Return the same distribution with no length above `bound`, which must be at least 1."""
        if bound < 1:
            raise ValueError(f"length bound {bound} is too small; use at least 1")
        if bound >= self.most:
            return self
        return LengthSpread(min(self.median, bound), self.sigma, min(self.least, bound), bound)


@dataclass(frozen=True, slots=True)
class PromptTexts:
    """The questions and passages of one language."""

    questions: tuple[str, ...]
    passages: tuple[str, ...]


@cache
def texts(language: str) -> PromptTexts:
    """Return the texts in `language`. Raises `ValueError` if the suite has none."""
    if language not in FILES:
        raise ValueError(f"there are no prompts in {language!r}; use one of {', '.join(FILES)}")
    content = (Path(__file__).parent / FILES[language]).read_text(encoding="utf-8")
    _, questions, passages = (
        part.strip() for part in content.replace("[passages]", "[questions]").split("[questions]")
    )
    return PromptTexts(tuple(questions.splitlines()), tuple(passages.split("\n\n")))


def prompt(language: str, words: int, number: int, random: Random) -> str:
    """About `words` words in `language`, under `number`, which has to differ from prompt to prompt.

    The question is always whole, so a prompt may be a few words over a small `words`.
    """
    held = texts(language)
    opening = OPENINGS[language].format(number=number)
    question = random.choice(held.questions)
    missing = words - count_words(opening) - count_words(question)
    return opening + " ".join([*_padding(held.passages, missing, random), question])


def _padding(passages: Sequence[str], words: int, random: Random) -> list[str]:
    chosen: list[str] = []
    rest: list[str] = []
    while words > 0:
        rest = rest or random.sample(passages, len(passages))
        whole = rest.pop().split()
        chosen.append(" ".join(whole[:words]) + (" …" if len(whole) > words else ""))
        words -= len(whole)
    return chosen


def count_words(text: str) -> int:
    """Count words, separated by white space: the same measure for every language and tokenizer."""
    return len(text.split())

"""Make prompts of a given length from texts in English and Swedish that were written for this benchmark.

The same seed gives the same prompts, and no two prompts of a run are equal. A short prompt is a question from
`english.txt` or `swedish.txt`. A longer prompt has passages before the question, in random order, until it
has enough words. No passage is repeated before all have been used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

FILES = {"en": "english.txt", "sv": "swedish.txt"}
"""Maps each language code to the file with its texts, in the folder of this module."""
OPENINGS = {"en": "Case {number}. ", "sv": "Ärende {number}. "}
"""Maps each language code to the first words of its prompts. The number in them makes each prompt unique, so
that no prefix cache holds it.
"""


@dataclass(frozen=True, slots=True)
class LengthSpread:
    """A log-normal distribution of lengths, limited to `least` and `most`."""

    median: float
    sigma: float
    """Standard deviation of the logarithm of the length. 0: every length is the median."""
    least: int
    most: int

    def __post_init__(self) -> None:
        if not 0 < self.least <= self.median <= self.most:
            raise ValueError(
                f"the distribution of lengths {self} is invalid; it needs 0 < least ≤ median ≤ most"
            )
        if self.sigma < 0:
            raise ValueError(f"sigma {self.sigma} of the distribution of lengths is negative; use 0 or more")

    def draw(self, random: Random) -> int:
        """Draw a random length from the distribution."""
        drawn = random.lognormvariate(math.log(self.median), self.sigma) if self.sigma else self.median
        return max(self.least, min(self.most, round(drawn)))

    def at_most(self, bound: int) -> LengthSpread:
        """Return the distribution limited to lengths of at most `bound`. Raises `ValueError` if `bound` is
        below 1.
        """
        if bound < 1:
            raise ValueError(f"the maximum length {bound} is too small; use at least 1")
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
    """Return the questions and passages in `language`. Raises `ValueError` for a language without texts."""
    if language not in FILES:
        raise ValueError(f"there are no prompts in the language {language!r}; use one of {', '.join(FILES)}")
    content = (Path(__file__).parent / FILES[language]).read_text(encoding="utf-8")
    _, questions, passages = (
        part.strip() for part in content.replace("[passages]", "[questions]").split("[questions]")
    )
    return PromptTexts(tuple(questions.splitlines()), tuple(passages.split("\n\n")))


def prompt(language: str, words: int, number: int, random: Random) -> str:
    """Return a prompt of about `words` words in `language`. It begins with `number`, which must differ
    between prompts.

    The question is never cut, so a prompt may be a few words longer than a small `words`.
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
    """Return the number of words, separated by white space. Unlike a token count, it does not depend on a
    tokenizer.
    """
    return len(text.split())

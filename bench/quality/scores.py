"""Compute scores from answers, without I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.quality.ask import QualityAnswer
from bench.quality.language import language_of

NORMAL_95 = 1.959964
"""Two-sided 95% of the standard normal distribution."""


def wilson(right: int, of: int) -> tuple[float, float]:
    """Return the 95% interval (Wilson, 1927) of the share of `right` among `of`, which is at least 1."""
    share, square = right / of, NORMAL_95**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / of + square / (4 * of**2)) / (1 + square / of)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class QualityShare:
    """A share (count of total) with its 95% Wilson interval."""

    right: int
    of: int

    @property
    def share(self) -> float | None:
        """The share, between 0 and 1. None if nothing was judged."""
        return self.right / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper bound of the share's interval."""
        return wilson(self.right, self.of) if self.of else None


def share(answers: Sequence[QualityAnswer], good: Callable[[QualityAnswer], bool]) -> QualityShare:
    """Return the share of `answers` for which `good` is true."""
    return QualityShare(sum(map(good, answers)), len(answers))


@dataclass(frozen=True, slots=True)
class VoiceScores:
    """The scores of one voice (an adapter or the base) for questions in one language."""

    voice: str
    language: str
    """The language of the questions."""
    right: bool
    """True if this is the adapter for the questions' language."""
    fidelity: QualityShare
    """Share of answers in the language of the question."""
    identity: QualityShare
    """Share of answers to identity questions that give the right name, in the language of the question."""
    log_probability: float | None
    """Mean log probability, in nats, of a word of the suite's passages in that language."""


def score_voice(
    voice: str,
    language: str,
    right: bool,
    answers: Sequence[QualityAnswer],
    identity: str,
    log_probability: float | None,
) -> VoiceScores:
    """Score the answers of an adapter, or of the base, to questions in `language`."""
    own = [answer for answer in answers if answer.question.language == language]
    about = [answer for answer in own if answer.question.kind == "identity"]

    def in_language(answer: QualityAnswer) -> bool:
        return language_of(answer.text) == language

    def named(answer: QualityAnswer) -> bool:
        return identity.casefold() in answer.text.casefold() and in_language(answer)

    return VoiceScores(voice, language, right, share(own, in_language), share(about, named), log_probability)


@dataclass(frozen=True, slots=True)
class WrongAdapterCost:
    """The cost of a wrong adapter: the scores of the right adapter minus those of the wrong one."""

    language: str
    right: str
    wrong: str
    fidelity: float
    identity: float
    perplexity_ratio: float | None
    """Perplexity per word with the wrong adapter, divided by that with the right one."""


def wrong_costs(scores: Sequence[VoiceScores]) -> list[WrongAdapterCost]:
    """Compare the right adapter with the base and every other adapter, for each language."""
    return [
        _cost(right, wrong)
        for right in scores
        if right.right
        for wrong in scores
        if wrong.language == right.language and not wrong.right
    ]


def _cost(right: VoiceScores, wrong: VoiceScores) -> WrongAdapterCost:
    a, b = right.log_probability, wrong.log_probability
    return WrongAdapterCost(
        right.language,
        right.voice,
        wrong.voice,
        (right.fidelity.share or 0.0) - (wrong.fidelity.share or 0.0),
        (right.identity.share or 0.0) - (wrong.identity.share or 0.0),
        math.exp(a - b) if a is not None and b is not None else None,
    )

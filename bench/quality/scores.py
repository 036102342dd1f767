"""Compute the scores of a quality benchmark from its answers, without I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.quality.ask import QualityAnswer
from bench.quality.language import language_of

NORMAL_95 = 1.959964
"""Quantile of the standard normal distribution for a two-sided 95% interval."""


def wilson(right: int, of: int) -> tuple[float, float]:
    """Return the 95% interval of a share of `right` out of `of` (Wilson, 1927). `of` must be at least 1."""
    share, square = right / of, NORMAL_95**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / of + square / (4 * of**2)) / (1 + square / of)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class QualityShare:
    """A share, such as the share of right answers, with its 95% Wilson interval."""

    right: int
    of: int

    @property
    def share(self) -> float | None:
        """The share, from 0 to 1. None if there are no answers."""
        return self.right / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper bound of the share's 95% interval. None if there are no answers."""
        return wilson(self.right, self.of) if self.of else None


def share(answers: Sequence[QualityAnswer], good: Callable[[QualityAnswer], bool]) -> QualityShare:
    """Return the share of `answers` for which `good` is true."""
    return QualityShare(sum(map(good, answers)), len(answers))


@dataclass(frozen=True, slots=True)
class VoiceScores:
    """The scores of one model, an adapter or the base, for questions in one language."""

    voice: str
    language: str
    """The language of the questions."""
    right: bool
    """True if the model is the adapter for the language of the questions."""
    fidelity: QualityShare
    """Share of answers in the language of the question."""
    identity: QualityShare
    """Share of answers to identity questions that have the right name and are in the language of the
    question.
    """
    log_probability: float | None
    """Mean log probability of a word in the benchmark's passages in this language, in nats. None if the
    server cannot return log probabilities of a prompt.
    """


def score_voice(
    voice: str,
    language: str,
    right: bool,
    answers: Sequence[QualityAnswer],
    identity: str,
    log_probability: float | None,
) -> VoiceScores:
    """Score a model's answers to the questions in `language`. `right` is true if the model is the adapter for
    this language.
    """
    own = [answer for answer in answers if answer.question.language == language]
    about = [answer for answer in own if answer.question.kind == "identity"]

    def in_language(answer: QualityAnswer) -> bool:
        return language_of(answer.text) == language

    def named(answer: QualityAnswer) -> bool:
        return identity.casefold() in answer.text.casefold() and in_language(answer)

    return VoiceScores(voice, language, right, share(own, in_language), share(about, named), log_probability)


@dataclass(frozen=True, slots=True)
class WrongAdapterCost:
    """What a wrong adapter costs: the scores of the right adapter minus the scores of the wrong adapter."""

    language: str
    right: str
    wrong: str
    fidelity: float
    identity: float
    perplexity_ratio: float | None
    """Perplexity per word with the wrong adapter, divided by that with the right adapter. None if it was not
    measured.
    """


def wrong_costs(scores: Sequence[VoiceScores]) -> list[WrongAdapterCost]:
    """Compare the right adapter of each language with the base and with every other adapter."""
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

"""Similarity of two texts: chrF (Popović, 2015), made symmetric.

chrF compares the character n-grams of a text with those of a reference, without white space, for n from 1 to
6. It is the F-score of their mean precision and mean recall, and recall counts twice (beta 2). Which of two
answers is the reference is arbitrary, so the two directions are averaged. The value is from 0 to 1;
sacrebleu's chrF2 is 100 times one direction.

It measures wording: answers that say the same in other words score low, and a "not" changes little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

ORDERS = range(1, 7)
BETA_SQUARED = 4.0
MAX_CHARACTERS = 8192
"""Number of characters to compare, from the beginning of each text; this limits the work."""

Grams = Sequence[Counter[str]]
"""Frequencies of a text's character n-grams, with one counter for each n in `ORDERS`."""


def character_grams(text: str) -> Grams:
    """Count the n-grams of the first `MAX_CHARACTERS` characters of `text`, without white space."""
    signs = "".join(text[:MAX_CHARACTERS].split())
    return [Counter(signs[start : start + n] for start in range(len(signs) - n + 1)) for n in ORDERS]


def chrf(hypothesis: Grams, reference: Grams) -> float:
    """Return the chrF score of `hypothesis` against `reference`, 0 to 1. N-grams that are longer than one of
    the texts do not count.
    """
    precision = recall = orders = 0.0
    for ours, theirs in zip(hypothesis, reference, strict=True):
        total, expected = ours.total(), theirs.total()
        if total and expected:
            matches = sum(min(count, theirs[gram]) for gram, count in ours.items() if gram in theirs)
            precision += matches / total
            recall += matches / expected
            orders += 1
    if not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)


def agreement(one: Grams, other: Grams) -> float:
    """Return the mean chrF score of both directions, 0 to 1. Two texts without any characters get 1."""
    if not one[0] and not other[0]:
        return 1.0
    return (chrf(one, other) + chrf(other, one)) / 2

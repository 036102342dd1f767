"""Weights of each kind of evidence, fitted on one half of the labelled texts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each kind of evidence counts: factors on log-likelihoods, or nats."""

    profile: float = 0.12
    """Factor of the log-likelihood of the letter statistics."""
    frequency: float = 0.87
    """Factor of the log-likelihood of the word frequencies."""
    letter: float = 0.65
    """Evidence in nats for each letter beyond a to z that occurs in the text and is in the language's
    alphabet, such as `å`.
    """
    ending: float = 0.88
    """Evidence in nats for each word with a typical ending, divided among the languages that
    have the ending.
    """
    foreign: float = 3.1
    """Nats subtracted from a language's score for each word with a letter that the language does not use."""
    phrase: float = 4.0
    """Evidence in nats for a language if the whole message is one of its known phrases, such as
    "god morgon".
    """
    penalty: float = 2.0
    """Nats subtracted from the score of `xx` (something else), because the best of its many languages fits
    noise better than a single language does.
    """


WEIGHTS = Weights()
OTHER_SCRIPTS = Weights(profile=0.21, penalty=2.4)
"""Weights for scripts whose languages have no word frequencies, only letter statistics."""

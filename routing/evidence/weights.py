"""Weights of each kind of evidence, fitted on one half of the labelled texts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights of the evidence: factors of log-likelihoods, or nats."""

    profile: float = 0.12
    """Factor of the log-likelihood of the letter statistics."""
    frequency: float = 0.87
    """Factor of the log-likelihood of the word frequencies."""
    letter: float = 0.65
    """Evidence in nats for each letter beyond a to z that occurs in the text and is in the language's
    alphabet, such as `å`.
    """
    ending: float = 0.88
    """Nats for each ending, divided among the languages that have it."""
    foreign: float = 3.1
    """Nats subtracted for each word with a letter that the language does not use."""
    phrase: float = 4.0
    """Nats for a message that is a known phrase as a whole."""
    penalty: float = 2.0
    """Nats subtracted from `xx`: the best of its many languages fits noise better than a single one."""


WEIGHTS = Weights()
OTHER_SCRIPTS = Weights(profile=0.21, penalty=2.4)
"""Weights for scripts whose languages have no word frequencies, only letter statistics."""

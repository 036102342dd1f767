"""Repetition, presence and frequency penalties, which change the logits of tokens that a sequence contains
already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.request import Sampling

_LARGEST = np.finfo(np.float32).max


class SeenTokens:
    """The distinct tokens of one sequence, with the number of times that each was generated.

    Prompt tokens are included, with a count of 0, only if the request sets a repetition penalty.
    """

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self.repetition = sampling.repetition_penalty
        self.presence = sampling.presence_penalty
        self.frequency = sampling.frequency_penalty
        known = dict.fromkeys(prompt) if self.repetition != 1.0 else {}
        self._places = {token: place for place, token in enumerate(known)}
        self._ids = np.zeros(len(known) + 64, np.int64)
        self._ids[: len(known)] = list(known)
        self._counts = np.zeros(len(self._ids), np.float32)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Distinct token ids of the sequence, in the order in which they first occurred."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.float32]:
        """Number of times that each token of `ids` was generated."""
        return self._counts[: len(self._places)]

    def add(self, token: int) -> None:
        """Count one more generation of `token`."""
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token
        self._counts[place] += 1


def wants_penalties(sampling: Sampling) -> bool:
    """Return True if the request sets a repetition, presence or frequency penalty."""
    return (
        sampling.repetition_penalty != 1.0
        or sampling.presence_penalty != 0.0
        or sampling.frequency_penalty != 0.0
    )


class Penalties:
    """Applies repetition, presence and frequency penalties to the sequences of a batch that have any."""

    def __init__(self, rows: Sequence[int], seen: Sequence[SeenTokens]) -> None:
        self._rows = np.asarray(rows, np.int64)
        self._seen = tuple(seen)
        self._repetition = np.array([tokens.repetition for tokens in seen], np.float32)
        self._presence = np.array([tokens.presence for tokens in seen], np.float32)
        self._frequency = np.array([tokens.frequency for tokens in seen], np.float32)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Apply the penalties to `logits` [n, vocabulary] in place.

        First, the repetition penalty divides positive logits and multiplies negative ones (CTRL, Keskar et
        al. 2019). Then the frequency and presence penalties are subtracted, as in OpenAI's API.
        """
        if not self._seen:
            return
        ids = np.concatenate([tokens.ids for tokens in self._seen])
        counts = np.concatenate([tokens.counts for tokens in self._seen])
        lengths = [len(tokens.ids) for tokens in self._seen]
        rows = np.repeat(self._rows, lengths)
        repetition = np.repeat(self._repetition, lengths)
        values = logits[rows, ids]
        with np.errstate(over="ignore"):
            values = np.where(values > 0, values / repetition, values * repetition)
        values -= np.repeat(self._frequency, lengths) * counts
        values -= np.repeat(self._presence, lengths) * (counts > 0)
        logits[rows, ids] = np.minimum(values, _LARGEST)

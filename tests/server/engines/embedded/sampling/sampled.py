"""Logits by chance, and what a sampler makes of one row of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.sampling.sampler import (
    SampledToken,
    Sampler,
)
from server.request import Sampling

Logits = NDArray[np.float32]
NO_ENDS: frozenset[int] = frozenset()


def logits_of(rows: int, vocabulary: int, seed: int = 0, spread: float = 3.0) -> Logits:
    return (np.random.default_rng(seed).standard_normal((rows, vocabulary)) * spread).astype(np.float32)


def sample_one(logits: Logits, sampling: Sampling, prompt: Sequence[int] = ()) -> SampledToken:
    sampler = Sampler(len(logits), NO_ENDS)
    return sampler.sample(logits[None].copy(), [sampler.state(sampling, prompt)])[0]

"""Measures how similar two texts are: the Jaccard similarity of their word shingles, exactly and by MinHash.

Source: A. Broder, "On the resemblance and containment of documents" (1997); banding as in J. Leskovec,
A. Rajaraman, J. Ullman, "Mining of Massive Datasets", chapter 3. The hash functions are multiply-shift
(M. Dietzfelbinger et al., 1997) over mixed 64-bit shingle hashes, the same in every run.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHINGLE = 3
"""Words in a shingle. A shorter text is one shingle."""
BANDS, ROWS = 16, 4
"""Two texts of similarity s share a band with probability 1 - (1 - s^4)^16: 0.9998 at 0.8, 0.64 at 0.5."""

Hashes = NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_MIX = np.uint64(0x9E3779B97F4A7C15)
_generator = np.random.default_rng(20)
_FACTORS: Hashes = _generator.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
_TERMS: Hashes = _generator.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)
_FEW = 4096
"""Shingles that are hashed at once, and the most that represent one text. Limits memory to a few MB."""


def normal(text: str) -> str:
    """Normalise `text`: ignore case, character width, and runs of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def key(text: str) -> int:
    """Return 64 bits that are equal for texts with equal normal forms."""
    return int.from_bytes(hashlib.blake2b(normal(text).encode(), digest_size=8).digest(), "little")


def shingles(text: str) -> Hashes:
    """Return hashes of every `SHINGLE` successive words of `text`, sorted and unique; never empty.

    A text with more than 4,096 shingles is represented by the smallest ones (Broder's bottom-k sketch).
    """
    words: list[str] = _WORD.findall(normal(text)) or [normal(text)]
    hashed = np.array([zlib.crc32(word.encode()) for word in words], np.uint64)
    width = min(SHINGLE, len(hashed))
    found = np.zeros(len(hashed) - width + 1, np.uint64)
    for offset in range(width):
        found = _mixed(found + hashed[offset : offset + len(found)] + np.uint64(offset + 1))
    return np.unique(found)[:_FEW]


def similarity(one: Hashes, other: Hashes) -> float:
    """Return the Jaccard similarity of two results of `shingles`, from 0 to 1."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def bands(texts: Sequence[Hashes]) -> Hashes:
    """Return a row of `BANDS` hashes for each result of `shingles`. Texts that share one are candidates."""
    minima = np.empty((len(texts), BANDS * ROWS), np.uint64)
    for start, end in _batches(texts):
        flat = np.concatenate(texts[start:end])
        starts = np.cumsum([0, *(len(text) for text in texts[start : end - 1])])
        hashed = (flat[:, None] * _FACTORS + _TERMS) >> np.uint64(32)
        minima[start:end] = np.minimum.reduceat(hashed, starts, axis=0)
    grouped = minima.reshape(len(texts), BANDS, ROWS)
    found = np.zeros((len(texts), BANDS), np.uint64)
    for row in range(ROWS):
        found = _mixed(found + grouped[:, :, row])
    return found


def _batches(texts: Sequence[Hashes]) -> list[tuple[int, int]]:
    """Yield ranges of `texts` with about `_FEW` shingles each."""
    found: list[tuple[int, int]] = []
    start = size = 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= _FEW:
            found.append((start, index + 1))
            start, size = index + 1, 0
    return [*found, (start, len(texts))] if start < len(texts) else found


def _mixed(values: Hashes) -> Hashes:
    """Apply the finaliser of splitmix64 (G. Steele et al., 2014)."""
    values = values + _MIX
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

"""Measure how similar two texts are: the Jaccard similarity of their word shingles, exactly or estimated by
MinHash.

Source: A. Broder, "On the resemblance and containment of documents" (1997). MinHash values are grouped into
bands as in J. Leskovec, A. Rajaraman, J. Ullman, "Mining of Massive Datasets", chapter 3. The hash functions
are multiply-shift (M. Dietzfelbinger et al., 1997) over mixed 64-bit shingle hashes; every run uses the same
functions.
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
"""Number of successive words in a shingle. A text with fewer words is a single shingle."""
BANDS, ROWS = 16, 4
"""MinHash uses 16 bands of 4 rows. Two texts with similarity s share a band with probability 1 - (1 -
s^4)^16: 0.9998 at s = 0.8, 0.64 at s = 0.5.
"""

Hashes = NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_MIX = np.uint64(0x9E3779B97F4A7C15)
_generator = np.random.default_rng(20)
_FACTORS: Hashes = _generator.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
_TERMS: Hashes = _generator.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)
_FEW = 4096
"""Maximum number of shingles that represent one text, and the number that is hashed at once. It limits memory
use to a few MB.
"""


def normal(text: str) -> str:
    """Return `text` in a normal form that ignores case, character width and repeated white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def key(text: str) -> int:
    """Return a 64-bit hash of a text's normal form, so texts that `normal` makes equal have equal hashes."""
    return int.from_bytes(hashlib.blake2b(normal(text).encode(), digest_size=8).digest(), "little")


def shingles(text: str) -> Hashes:
    """Return the sorted, unique hashes of the text's shingles, which are its sequences of three words
    (`SHINGLE`). The result is never empty. Only the 4,096 smallest hashes of a long text are kept (Broder's
    bottom-k sketch).
    """
    words: list[str] = _WORD.findall(normal(text)) or [normal(text)]
    hashed = np.array([zlib.crc32(word.encode()) for word in words], np.uint64)
    width = min(SHINGLE, len(hashed))
    found = np.zeros(len(hashed) - width + 1, np.uint64)
    for offset in range(width):
        found = _mixed(found + hashed[offset : offset + len(found)] + np.uint64(offset + 1))
    return np.unique(found)[:_FEW]


def similarity(one: Hashes, other: Hashes) -> float:
    """Return the Jaccard similarity of two texts, from 0 to 1, given their `shingles`."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def bands(texts: Sequence[Hashes]) -> Hashes:
    """Return the MinHash band hashes of texts, given their `shingles`: one row for each text, with a hash for
    each of the 16 bands. Two texts that share a hash in the same column may be similar.
    """
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
    """Split the list `texts`, which holds the shingles of each text, into ranges (start, end) of texts that
    are hashed at once. A range has about 4,096 shingles (`_FEW`), which limits memory.
    """
    found: list[tuple[int, int]] = []
    start = size = 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= _FEW:
            found.append((start, index + 1))
            start, size = index + 1, 0
    return [*found, (start, len(texts))] if start < len(texts) else found


def _mixed(values: Hashes) -> Hashes:
    """Mix the bits of 64-bit hashes with the finalizer of splitmix64 (G. Steele et al., 2014)."""
    values = values + _MIX
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

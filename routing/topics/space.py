"""Loads word vectors, in which words with similar uses are near each other. Loaded only if there are topics.

The data is `space/words.bin`, for English, built by `routing.topics.build_space`. See the NOTICE beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec
import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 32
NARROW = 8.0
"""The weight of a word with cosine c is exp(NARROW × c). A larger value ignores less similar words more."""
FILE = "words.bin"
_TRUST = 0.5
"""Assumed share of a topic's words that are similar to those of its examples."""
_MOST = 3.0
"""Maximum evidence of one word for a topic, in nats."""
_AT_ONCE = 256
"""Number of example words that are compared at once, which limits memory."""


class PackedSpace(msgspec.Struct, frozen=True, array_like=True):
    """Contents of the file: MessagePack compressed with zlib, little-endian numbers."""

    words: str
    """All words of the space, sorted, one on each line."""
    rows: bytes
    """uint16: the row of each word. Similar words share a row."""
    vectors: bytes
    """int8 [row, DIMENSIONS]: the direction of each row."""
    usual: bytes
    """float16 [row]: log of the mean similarity to the words of any question."""


@dataclass(frozen=True, slots=True)
class WordSpace:
    """Words with their vectors in the space."""

    rows: Mapping[str, int]
    """Maps each word to its row in the table."""
    vectors: NDArray[np.float32]
    """Unit vectors of the words, [row, DIMENSIONS]."""
    usual: NDArray[np.float32]
    """[row]: log of the mean similarity to the words of any question."""

    def places(self, words: Mapping[str, float]) -> tuple[list[int], NDArray[np.float32]]:
        """Return the rows and weights of those of `words` (weights above 0 by word) that have a
        vector.
        """
        found = [(row, weight) for word, weight in words.items() if (row := self.rows.get(word)) is not None]
        return [row for row, _ in found], np.array([weight for _, weight in found], dtype=np.float32)

    def ratios(self, examples: Sequence[Mapping[str, float]]) -> NDArray[np.float32]:
        """Compute, for each row, the log ratio of a word's probability in the topic of `examples`."""
        weights = np.zeros(len(self.vectors), dtype=np.float32)
        for example in examples:
            rows, of = self.places(example)
            np.add.at(weights, rows, of)
        used = np.flatnonzero(weights)
        if not len(used):
            return weights
        near = np.zeros_like(weights)
        for start in range(0, len(used), _AT_ONCE):
            rows = used[start : start + _AT_ONCE]
            near += np.exp(NARROW * (self.vectors @ self.vectors[rows].T)) @ weights[rows]
        ratio = near / weights.sum() / np.exp(self.usual)
        return np.minimum(_MOST, np.log(1 - _TRUST + _TRUST * ratio))


@cache
def load_space() -> WordSpace:
    """Load the word space from its file."""
    blob = files("routing").joinpath("topics", "space", FILE).read_bytes()
    packed = msgspec.msgpack.decode(zlib.decompress(blob), type=PackedSpace)
    rows = np.frombuffer(packed.rows, "<u2").tolist()
    vectors = np.frombuffer(packed.vectors, np.int8).reshape(-1, DIMENSIONS).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    usual = np.frombuffer(packed.usual, "<f2").astype(np.float32)
    for array in (vectors, usual):
        array.setflags(write=False)
    return WordSpace(dict(zip(packed.words.split("\n"), rows, strict=True)), vectors, usual)

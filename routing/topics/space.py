"""Load word vectors, in which words with similar uses are near each other. They are loaded only if an adapter
has a topic.

The data is `space/words.bin`, for English, built by `routing.topics.build_space`; its licence is in the
NOTICE beside it.
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
"""A word that has cosine c with another counts exp(NARROW × c) as similar to it. A larger value ignores less
similar words more.
"""
FILE = "words.bin"
_TRUST = 0.5
"""Assumed fraction of a topic's words that are similar to words of its examples."""
_MOST = 3.0
"""Maximum evidence of one word for a topic, in nats."""
_AT_ONCE = 256
"""Number of example words that are compared at once, which limits memory."""


class PackedSpace(msgspec.Struct, frozen=True, array_like=True):
    """Contents of the file `words.bin` with the word vectors: MessagePack compressed with zlib, little-endian
    numbers.
    """

    words: str
    """All words that have a vector, sorted, one on each line."""
    rows: bytes
    """Array of uint16: the row of each word's vector. Some similar words have the same row."""
    vectors: bytes
    """Array of int8 [row, DIMENSIONS]: the direction of each vector."""
    usual: bytes
    """Array of float16 [row]: log of the vector's mean similarity to the words of any question."""


@dataclass(frozen=True, slots=True)
class WordSpace:
    """The words and their unit vectors."""

    rows: Mapping[str, int]
    """Maps each word to the row of its vector in `vectors`."""
    vectors: NDArray[np.float32]
    """Unit vectors of the words: float32 [row, DIMENSIONS]."""
    usual: NDArray[np.float32]
    """[row]: log of the vector's mean similarity to the words of any question."""

    def places(self, words: Mapping[str, float]) -> tuple[list[int], NDArray[np.float32]]:
        """Return the rows and the weights of those words that have a vector. `words` maps each word to its
        weight, above 0.
        """
        found = [(row, weight) for word, weight in words.items() if (row := self.rows.get(word)) is not None]
        return [row for row, _ in found], np.array([weight for _, weight in found], dtype=np.float32)

    def ratios(self, examples: Sequence[Mapping[str, float]]) -> NDArray[np.float32]:
        """Compute, for each row of `vectors`, the log ratio of two probabilities: that a question on the
        topic of `examples` has a word with this vector, and that any question has one.
        """
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
    """Load the words and their vectors from `space/words.bin`. The result is cached."""
    blob = files("routing").joinpath("topics", "space", FILE).read_bytes()
    packed = msgspec.msgpack.decode(zlib.decompress(blob), type=PackedSpace)
    rows = np.frombuffer(packed.rows, "<u2").tolist()
    vectors = np.frombuffer(packed.vectors, np.int8).reshape(-1, DIMENSIONS).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    usual = np.frombuffer(packed.usual, "<f2").astype(np.float32)
    for array in (vectors, usual):
        array.setflags(write=False)
    return WordSpace(dict(zip(packed.words.split("\n"), rows, strict=True)), vectors, usual)

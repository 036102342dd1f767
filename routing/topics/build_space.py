"""Build the file of word vectors: `python -m routing.topics.build_space SPACY_VOCAB WORDFREQ_DATA`.

SPACY_VOCAB is the folder `vocab` of an unpacked en_core_web_md 3.8, whose vectors are CC0; WORDFREQ_DATA is
the folder `wordfreq/data` of an unpacked wordfreq 3.1 wheel, which says which words are common. Neither is a
dependency. The same input gives the same words and nearly the same numbers.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from routing.evidence.build_frequencies import read_words
from routing.evidence.listed import STEP
from routing.topics.features import weight_of
from routing.topics.space import DIMENSIONS, FILE, NARROW, PackedSpace

WORDS = 80_000
LOOKED_UP = 120_000
"""Maximum number of words from wordfreq's list that are looked up among spaCy's vectors."""
_WHITE = 0.25
"""Exponent of whitening: each principal direction is divided by its variance to this power."""
_WORD = re.compile(r"[a-z][a-z']+")
_MULTIPLIER, _MASK = 0xC6A4A7935BD1E995, (1 << 64) - 1
TARGET = Path(__file__).parent / "space" / FILE


def key_of(word: str, seed: int = 1) -> int:
    """Compute spaCy's key of a word with MurmurHash64A (Austin Appleby, 2008)."""
    data = word.encode()
    found = (seed ^ (len(data) * _MULTIPLIER)) & _MASK
    whole = len(data) // 8 * 8
    for start in range(0, whole, 8):
        part = int.from_bytes(data[start : start + 8], "little") * _MULTIPLIER & _MASK
        part = (part ^ part >> 47) * _MULTIPLIER & _MASK
        found = (found ^ part) * _MULTIPLIER & _MASK
    if len(data) > whole:
        found = (found ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    found = (found ^ found >> 47) * _MULTIPLIER & _MASK
    return found ^ found >> 47


def directions(vectors: NDArray[np.float64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project `vectors` on their 32 principal directions (`DIMENSIONS`), and scale them to length 1. `share`
    is the relative frequency of the words of each vector.
    """
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    centred = vectors - share @ vectors
    variances, axes = np.linalg.eigh((centred * share[:, None]).T @ centred)
    main = np.argsort(-variances)[:DIMENSIONS]
    placed = centred @ axes[:, main] / variances[main] ** _WHITE
    return placed / np.maximum(np.linalg.norm(placed, axis=1, keepdims=True), 1e-9)


def build(vocabulary: Path, frequencies: Path, target: Path = TARGET) -> None:
    """Build the word vectors from spaCy's `vocabulary` and wordfreq's `frequencies`, and write them to
    `target`.
    """
    key_to_row = msgspec.msgpack.decode(vocabulary.joinpath("key2row").read_bytes(), type=dict[int, int])
    every = read_words(frequencies / "large_en.msgpack.gz", LOOKED_UP, _WORD)
    listed = [
        (word, level, row) for level, word in every if (row := key_to_row.get(key_of(word))) is not None
    ]
    listed = sorted(listed[:WORDS])
    old, rows = np.unique([row for *_, row in listed], return_inverse=True)
    used = np.exp(-STEP * np.array([level for _, level, _ in listed]))
    share = np.bincount(rows, np.sqrt(used))
    placed = directions(np.load(vocabulary / "vectors")[old].astype(np.float64), share / share.sum())
    told = np.bincount(rows, used * [weight_of(word) for word, *_ in listed])
    usual = np.log(np.exp(NARROW * (placed @ placed.T)) @ (told / told.sum()))
    scaled = np.rint(placed * (127 / np.abs(placed).max(axis=1, keepdims=True))).astype(np.int8)
    packed = PackedSpace(
        "\n".join(word for word, *_ in listed),
        rows.astype("<u2").tobytes(),
        scaled.tobytes(),
        usual.astype("<f2").tobytes(),
    )
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(zlib.compress(msgspec.msgpack.encode(packed), 9))


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the file of word vectors, and print its size."""
    parser = argparse.ArgumentParser(
        prog="python -m routing.topics.build_space", description="Build the file of word vectors."
    )
    parser.add_argument("vocabulary", type=Path, help="folder vocab of spaCy's model en_core_web_md")
    parser.add_argument("frequencies", type=Path, help="folder with the data of the package wordfreq")
    options = parser.parse_args(arguments)
    build(options.vocabulary, options.frequencies)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()

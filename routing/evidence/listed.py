"""The word lists with frequencies, as `routing.evidence.build_frequencies` packs them; read once.

The data is `frequencies/words.bin`, made from wordfreq; its licence is in the NOTICE beside it. Rows number
the words of all languages together, from 1.
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

STEP = 0.25
"""Difference in nats between two adjacent levels of a list."""
FILE = "words.bin"


class PackedList(msgspec.Struct, frozen=True, array_like=True):
    """The list of one language. Its words are in the order of their rows."""

    gaps: bytes
    """uint16: difference between a row and the row before."""
    levels: bytes
    """An array of uint8 that holds -log(p) in steps of `STEP`."""


class PackedWords(msgspec.Struct, frozen=True, array_like=True):
    """Contents of the file: MessagePack compressed with zlib, little-endian numbers."""

    words: str
    """All words of the table, sorted, one on each line."""
    typed: str
    """Distinct spellings of accented words without accents, one on each line."""
    accented: bytes
    """uint32: rows of the accented words, grouped by their spelling in `typed`."""
    firsts: bytes
    """uint32: for each word of `typed`, the index of its first row in `accented`."""
    plain: bytes
    """uint32: for each spelling of `typed`, its row if it is also a word itself, else 0."""
    languages: dict[str, PackedList]
    profiles: dict[str, dict[str, float]]
    """The share of each n-gram among those of its length, for languages without a profile in langdetect."""


@dataclass(frozen=True, slots=True)
class ListedWords:
    """Every word of the lists, and how often each language uses it."""

    rows: Mapping[str, int]
    """Maps each word to its row in the table."""
    languages: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
    """Maps each language to its rows, rising, and log(p) of each."""
    typed: Sequence[str]
    """Words with accents, by their spelling without accents."""
    accented: NDArray[np.int64]
    """Rows of the accented words, by their place in `typed`."""
    firsts: NDArray[np.int64]
    """For each word of `typed`, the place of its first row in `accented`."""
    plain: NDArray[np.int64]
    """Return the row of each word in `typed`, and 0 for anything that is not a word."""
    profiles: Mapping[str, Mapping[str, float]]
    """The share of each n-gram among those of its length, for languages without a profile in langdetect."""


@cache
def listed_words() -> ListedWords:
    """The word lists in the data, without the hand-written ones."""
    blob = files("routing").joinpath("evidence", "frequencies", FILE).read_bytes()
    packed = msgspec.msgpack.decode(zlib.decompress(blob), type=PackedWords)
    words = packed.words.split("\n")
    return ListedWords(
        dict(zip(words, range(1, len(words) + 1), strict=True)),
        {code: _unpacked(one) for code, one in packed.languages.items()},
        packed.typed.split("\n"),
        np.frombuffer(packed.accented, "<u4").astype(np.int64),
        np.frombuffer(packed.firsts, "<u4").astype(np.int64),
        np.frombuffer(packed.plain, "<u4").astype(np.int64),
        packed.profiles,
    )


def _unpacked(packed: PackedList) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rows = np.frombuffer(packed.gaps, "<u2").cumsum(dtype=np.int64)
    return rows, np.frombuffer(packed.levels, np.uint8).astype(np.float64) * -STEP

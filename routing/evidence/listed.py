"""Load the word lists with frequencies that `routing.evidence.build_frequencies` packs.

The data is `frequencies/words.bin`, made from wordfreq; its licence is in the NOTICE beside it. Each word has
a row number, counted from 1 over all languages together.
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
"""Size of a level in nats: the lists store each word's -log(p) in steps of this size."""
FILE = "words.bin"


class PackedList(msgspec.Struct, frozen=True, array_like=True):
    """The packed word list of one language, in order of the words' row numbers."""

    gaps: bytes
    """Array of uint16: difference between each word's row number and that of the word before."""
    levels: bytes
    """Array of uint8: -log(p) of each word, in steps of 0.25 nats (`STEP`)."""


class PackedWords(msgspec.Struct, frozen=True, array_like=True):
    """Contents of the file `words.bin` with the word lists: MessagePack compressed with zlib, little-endian
    numbers.
    """

    words: str
    """All words of the table, sorted, one on each line."""
    typed: str
    """The distinct forms of accented words when they are typed without accents, one on each line."""
    accented: bytes
    """Array of uint32: row numbers of the accented words, grouped by their form without accents
    in `typed`.
    """
    firsts: bytes
    """Array of uint32: for each form in `typed`, the index of its first row number in `accented`."""
    plain: bytes
    """Array of uint32: for each entry of `typed`, the row number of the same word in `words`, counted from 1;
    0 if `words` lacks it.
    """
    languages: dict[str, PackedList]
    profiles: dict[str, dict[str, float]]
    """Letter profiles of languages that langdetect lacks. Maps each n-gram to its fraction of the n-grams of
    its length.
    """


@dataclass(frozen=True, slots=True)
class ListedWords:
    """The unpacked word lists: every word, and how often each language uses it."""

    rows: Mapping[str, int]
    """Maps each word to its row number, counted from 1."""
    languages: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
    """Maps each language to the row numbers of its words, ascending, and log(p) of each word."""
    typed: Sequence[str]
    """The distinct forms of accented words when they are typed without accents."""
    accented: NDArray[np.int64]
    """Row numbers of the accented words, grouped by their form without accents in `typed`."""
    firsts: NDArray[np.int64]
    """For each form in `typed`, the index of its first row number in `accented`."""
    plain: NDArray[np.int64]
    """For each form in `typed`, its own row number if it is also a listed word, else 0."""
    profiles: Mapping[str, Mapping[str, float]]
    """Letter profiles of languages that langdetect lacks. Maps each n-gram to its fraction of the n-grams of
    its length.
    """


@cache
def listed_words() -> ListedWords:
    """Load the word lists from `words.bin`, without the hand-written lists. The result is cached."""
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

"""Make the table of word frequencies: `python -m routing.evidence.build_frequencies WORDFREQ_DATA`.

WORDFREQ_DATA is the folder `wordfreq/data` of an unpacked wordfreq 3.1 wheel, which is not a dependency. The
same input gives the same bytes. The data is CC BY-SA 4.0; see `frequencies/NOTICE`.
"""

from __future__ import annotations

import argparse
import gzip
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from routing.evidence.frequencies import fold
from routing.evidence.listed import FILE, STEP, PackedList, PackedWords
from routing.evidence.profiles import ALPHA
from routing.reading.names import WORD

CANDIDATES = 26_000
"""Number of words in the table for each candidate language."""
ICELANDIC = 12_000
BACKGROUND = 1_500
"""Number of words in the table for each background language, which counts as "something else"."""
COMMON_WORDS = 3_000
"""Number of the most frequent words from which a letter profile is computed."""
MADE = ("is",)
"""Languages without a letter profile in langdetect. Their profiles are computed from their word
frequencies.
"""
SIZES = {
    **dict.fromkeys(("en", "sv", "da", "no", "de", "fi", "nl"), CANDIDATES),
    "is": ICELANDIC,
    **dict.fromkeys(
        ("ca", "cs", "es", "fr", "hu", "id", "it", "lt", "lv", "pl", "pt", "ro", "hr", "sk", "sl", "tl"),
        BACKGROUND,
    ),
    **dict.fromkeys(("tr", "vi"), BACKGROUND),
}
"""Maps each language code of the table to the number of words to use."""
NAMED = {"no": "nb", "tl": "fil", "hr": "sh"}
"""Maps each language code of the table to wordfreq's code, if they differ."""
TARGET = Path(__file__).parent / "frequencies" / FILE


def read_words(path: Path, most: int, form: re.Pattern[str] = WORD) -> list[tuple[int, str]]:
    """Read the likeliest words, at most `most`, from a list in wordfreq's format. Words that do not match the
    regular expression `form` are skipped.

    Returns (level, word) pairs; the level is the word's -log(p) in steps of 0.25 nats (`STEP`). wordfreq's
    format is a header, then one group of words for each hundredth of a decade of probability.
    """
    buckets = msgspec.msgpack.decode(gzip.decompress(path.read_bytes()), type=list[object])
    found: list[tuple[int, str]] = []
    for centibels, bucket in enumerate(buckets[1:]):
        level = round(centibels / 100 * math.log(10) / STEP)
        words = msgspec.convert(bucket, list[str])
        found += [(level, word) for word in words if form.fullmatch(word)]
        if len(found) >= most:
            break
    return found[:most]


def pack(lists: Mapping[str, Sequence[tuple[int, str]]]) -> PackedWords:
    """Pack the (level, word) lists of all languages into one table, in which every word has one
    row number.
    """
    words = sorted({word for listed in lists.values() for _, word in listed})
    row_of = {word: row for row, word in enumerate(words, 1)}
    spelled: dict[str, list[int]] = {}
    for word in words:
        if not word.isascii():
            spelled.setdefault(fold(word), []).append(row_of[word])
    starts = np.cumsum([0, *map(len, spelled.values())])[:-1]
    return PackedWords(
        "\n".join(words),
        "\n".join(spelled),
        np.concatenate(list(spelled.values())).astype("<u4").tobytes(),
        starts.astype("<u4").tobytes(),
        np.array([row_of.get(word, 0) for word in spelled], dtype="<u4").tobytes(),
        {code: _packed(sorted((row_of[word], level) for level, word in of)) for code, of in lists.items()},
        {code: profile_of(lists[code]) for code in MADE},
    )


def _packed(rows: Sequence[tuple[int, int]]) -> PackedList:
    gaps = np.diff([0, *(row for row, _ in rows)])
    if gaps.max() > np.iinfo(np.uint16).max:
        raise ValueError(
            f"two successive words of a language are {gaps.max()} rows apart in the table of all words, but "
            "a distance of at most 65,535 can be stored; add words to the language's list"
        )
    levels = np.array([level for _, level in rows], dtype=np.uint8)
    return PackedList(gaps.astype("<u2").tobytes(), levels.tobytes())


def profile_of(words: Sequence[tuple[int, str]]) -> dict[str, float]:
    """Compute a letter profile from the commonest of `words`: n-gram → its fraction of the n-grams of that
    length.
    """
    found: dict[str, float] = {}
    totals = [0.0, 0.0, 0.0, 0.0]
    for level, word in sorted(words)[:COMMON_WORDS]:
        for spelled in dict.fromkeys((word, fold(word))):
            share, padded = math.exp(-STEP * level), f" {spelled.replace(chr(39), ' ')} "
            for length in (1, 2, 3):
                for start in range(len(padded) - length + 1):
                    gram = padded[start : start + length]
                    if not gram.isspace():
                        found[gram] = found.get(gram, 0.0) + share
                        totals[length] += share
    return {
        gram: share / totals[len(gram)]
        for gram, share in found.items()
        if share > ALPHA * totals[len(gram)] / 50
    }


def build(folder: Path, target: Path = TARGET) -> None:
    """Build the table of word frequencies from wordfreq's lists in `folder`, and write it to the file
    `target`.
    """
    lists = {
        language: read_words(folder / f"small_{NAMED.get(language, language)}.msgpack.gz", most)
        for language, most in SIZES.items()
    }
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(zlib.compress(msgspec.msgpack.encode(pack(lists)), 9))


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the table of word frequencies, and print its size."""
    parser = argparse.ArgumentParser(
        prog="python -m routing.evidence.build_frequencies", description="Make the table of word frequencies."
    )
    parser.add_argument("folder", type=Path, help="folder with the data of the package wordfreq")
    build(parser.parse_args(arguments).folder)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()

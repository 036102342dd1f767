"""langdetect's letter statistics as one immutable table, scored exactly.

The profiles are data of the langdetect package (counts of one to three letters in each language's
Wikipedia). Its detector draws n-grams at random; here every n-gram of the text counts, as in the
method it was made for (Nakatani Shuyo, Language Detection Library for Java, 2010).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import msgspec
import numpy as np
from numpy.typing import NDArray

ALPHA = 0.5 / 10_000
"""Added to each probability: langdetect's own smoothing."""
_SPACE, _STRANGER = 0, 1


class ProfileError(LookupError):
    """There is no profile for a language; the message names it and those that exist."""


class _Profile(msgspec.Struct):
    freq: dict[str, int]
    n_words: list[int]


@dataclass(frozen=True, slots=True)
class ProfileTable:
    """log(p + alpha) of every known n-gram in every language, found by three array look-ups."""

    languages: tuple[str, ...]
    letters: NDArray[np.int32]
    """[code points] → letter id; 0 is a space, 1 a letter that no profile has."""
    first: NDArray[np.int32]
    """[letter] → row."""
    second: NDArray[np.int32]
    """[letter × width + letter] → row."""
    pairs: NDArray[np.int32]
    """[letter × width + letter] → number of the pair, 0 where no n-gram of three begins with it."""
    third: NDArray[np.int32]
    """[pair × width + letter] → row."""
    rows: NDArray[np.float32]
    """[row, language]; row 0, for n-grams that no profile has, is zero."""

    def score(self, text: str) -> tuple[NDArray[np.float64], int]:
        """Log-likelihood (natural log, unnormalised) of `text` in each language, and the n-grams it rests on.

        `text` is lower-case and holds letters and spaces alone; one space stands at each end.
        """
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids = self.letters[np.minimum(points, len(self.letters) - 1)]
        width = len(self.first)
        pair = ids[:-1] * width + ids[1:]
        found = np.concatenate(
            (self.first[ids], self.second[pair], self.third[self.pairs[pair[:-1]] * width + ids[2:]])
        )
        found = found[found > 0]
        return self.rows[found].sum(axis=0, dtype=np.float64), len(found)

    def frequent_letters(self, column: int, least: float) -> frozenset[str]:
        """Letters that make up at least `least` of the letters in the profile of `column`."""
        rows = self.first[self.letters]
        frequent = (rows > 0) & (self.rows[rows, column] >= np.log(least + ALPHA))
        return frozenset(chr(point) for point in np.flatnonzero(frequent))


def available() -> frozenset[str]:
    """Languages that langdetect has a profile of."""
    folder = files("langdetect").joinpath("profiles")
    return frozenset(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def load(languages: Sequence[str]) -> ProfileTable:
    """Read the profiles of `languages`; the columns of the table are in their order.

    Raises `ProfileError` where langdetect has none.
    """
    counts: defaultdict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(languages)))
    for column, language in enumerate(languages):
        for gram, probability in _read(language).items():
            counts[gram][column] += probability
    alphabet = sorted({letter for gram in counts for letter in gram} - {" "})
    ids = {" ": _SPACE, **{letter: number for number, letter in enumerate(alphabet, _STRANGER + 1)}}
    return _arrange(tuple(languages), counts, ids)


def _read(language: str) -> dict[str, float]:
    if language not in available():
        raise ProfileError(
            f"no profile for the language {language!r}; there are: {', '.join(sorted(available()))}"
        )
    blob = files("langdetect").joinpath("profiles", language).read_bytes()
    profile = msgspec.json.decode(blob, type=_Profile)
    found: defaultdict[str, float] = defaultdict(float)
    for gram, count in profile.freq.items():
        lower = gram.lower()
        if len(lower) == len(gram) <= len(profile.n_words) and lower != " ":
            found[lower] += count / profile.n_words[len(gram) - 1]
    return found


def _arrange(
    languages: tuple[str, ...], counts: dict[str, NDArray[np.float64]], ids: dict[str, int]
) -> ProfileTable:
    width = len(ids) + 1
    letters = np.full(max(map(ord, ids)) + 2, _STRANGER, dtype=np.int32)
    for letter, number in ids.items():
        letters[ord(letter)] = number
    prefixes = sorted({gram[:2] for gram in counts if len(gram) == 3})
    numbers = {prefix: number for number, prefix in enumerate(prefixes, 1)}
    first = np.zeros(width, dtype=np.int32)
    second = np.zeros(width * width, dtype=np.int32)
    pairs = np.zeros(width * width, dtype=np.int32)
    third = np.zeros((len(prefixes) + 1) * width, dtype=np.int32)
    for prefix, number in numbers.items():
        pairs[ids[prefix[0]] * width + ids[prefix[1]]] = number
    rows = np.zeros((len(counts) + 1, len(languages)), dtype=np.float32)
    for row, (gram, probabilities) in enumerate(sorted(counts.items()), 1):
        rows[row] = np.log(probabilities + ALPHA)
        if len(gram) == 1:
            first[ids[gram]] = row
        elif len(gram) == 2:
            second[ids[gram[0]] * width + ids[gram[1]]] = row
        else:
            third[numbers[gram[:2]] * width + ids[gram[2]]] = row
    for array in (letters, first, second, pairs, third, rows):
        array.setflags(write=False)
    return ProfileTable(languages, letters, first, second, pairs, third, rows)

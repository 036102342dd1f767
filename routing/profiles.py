"""langdetect's letter statistics as one immutable table, scored exactly.

The profiles are data of the langdetect package (counts of one to three letters in each language's
Wikipedia). Its detector draws n-grams at random; here every n-gram of the text counts, as in the
method it was made for (Nakatani Shuyo, Language Detection Library for Java, 2010).
"""

from __future__ import annotations

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


def profiled_languages() -> frozenset[str]:
    """Languages that langdetect has a profile of."""
    folder = files("langdetect").joinpath("profiles")
    return frozenset(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def load_profiles(languages: Sequence[str]) -> ProfileTable:
    """Read the profiles of `languages`; the columns of the table are in their order.

    Raises `ProfileError` where langdetect has none.
    """
    known = profiled_languages()
    if missing := [language for language in languages if language not in known]:
        raise ProfileError(f"no profile for {', '.join(missing)}; there are: {', '.join(sorted(known))}")
    profiles = [_read(language) for language in languages]
    grams = sorted(set().union(*profiles))
    row_of = {gram: row for row, gram in enumerate(grams, 1)}
    rows = np.zeros((len(grams) + 1, len(languages)), dtype=np.float32)
    for column, profile in enumerate(profiles):
        rows[[row_of[gram] for gram in profile], column] = list(profile.values())
    rows[1:] = np.log(rows[1:] + ALPHA)
    return _arrange(tuple(languages), grams, rows)


def _read(language: str) -> dict[str, float]:
    """N-gram in lower case → its share of the n-grams of its length; capitals count as small letters."""
    blob = files("langdetect").joinpath("profiles", language).read_bytes()
    profile = msgspec.json.decode(blob, type=_Profile)
    longest, totals = len(profile.n_words), [1, *profile.n_words]
    found: dict[str, float] = {}
    for gram, count in profile.freq.items():
        lower, length = gram.lower(), len(gram)
        if len(lower) == length <= longest and lower != " ":
            found[lower] = found.get(lower, 0.0) + count / totals[length]
    return found


def _arrange(languages: tuple[str, ...], grams: Sequence[str], rows: NDArray[np.float32]) -> ProfileTable:
    """Index `grams`, which stand in rows 1, 2, … of `rows`."""
    alphabet = sorted(frozenset("".join(grams)) - {" "})
    ids = {" ": _SPACE, **{letter: number for number, letter in enumerate(alphabet, _STRANGER + 1)}}
    width = len(ids) + 1
    letters = np.full(max(map(ord, ids)) + 2, _STRANGER, dtype=np.int32)
    letters[[ord(letter) for letter in ids]] = list(ids.values())
    prefixes = sorted({gram[:2] for gram in grams if len(gram) == 3})
    numbers = {prefix: number for number, prefix in enumerate(prefixes, 1)}
    first = np.zeros(width, dtype=np.int32)
    second = np.zeros(width * width, dtype=np.int32)
    pairs = np.zeros(width * width, dtype=np.int32)
    third = np.zeros((len(prefixes) + 1) * width, dtype=np.int32)
    for prefix, number in numbers.items():
        pairs[ids[prefix[0]] * width + ids[prefix[1]]] = number
    for row, gram in enumerate(grams, 1):
        if len(gram) == 1:
            first[ids[gram]] = row
        elif len(gram) == 2:
            second[ids[gram[0]] * width + ids[gram[1]]] = row
        else:
            third[numbers[gram[:2]] * width + ids[gram[2]]] = row
    for array in (letters, first, second, pairs, third, rows):
        array.setflags(write=False)
    return ProfileTable(languages, letters, first, second, pairs, third, rows)

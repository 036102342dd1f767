"""Letter statistics of langdetect in one immutable table, which scores every n-gram of a text.

The profiles are data of the langdetect package (counts of one to three letters in each language's Wikipedia).
langdetect's own detector draws n-grams at random; this module scores every n-gram of the text, as in the
method for which the profiles were made (Nakatani Shuyo, Language Detection Library for Java, 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import msgspec
import numpy as np
from numpy.typing import NDArray

from routing.evidence.listed import listed_words

ALPHA = 0.5 / 10_000
"""Added to each n-gram's probability, as in langdetect (additive smoothing)."""
_SPACE, _STRANGER = 0, 1


class ProfileError(LookupError):
    """There is no letter profile for a language. The message names the language and the languages with
    profiles.
    """


class _Profile(msgspec.Struct):
    freq: dict[str, int]
    n_words: list[int]


@dataclass(frozen=True, slots=True)
class ProfileTable:
    """Scores log(p + ALPHA) of every known n-gram in every language. Finding an n-gram takes up to three
    array look-ups.
    """

    languages: tuple[str, ...]
    letters: NDArray[np.int32]
    """[code point] → letter id: 0 for a space, 1 for a letter that no profile has."""
    first: NDArray[np.int32]
    """[letter id] → row of the one-letter n-gram."""
    second: NDArray[np.int32]
    """[first letter id × width + second letter id] → row of the two-letter n-gram."""
    pairs: NDArray[np.int32]
    """[first letter id × width + second letter id] → number of the letter pair; 0 if no three-letter n-gram
    begins with it.
    """
    third: NDArray[np.int32]
    """[number of the letter pair × width + third letter id] → row of the three-letter n-gram."""
    rows: NDArray[np.float32]
    """[row, language]: log(p + ALPHA) of the row's n-gram. Row 0 is for n-grams that no profile has, and is
    all 0.
    """

    def score(self, text: str) -> tuple[NDArray[np.float64], int]:
        """Return the unnormalised log-likelihood of `text` in each language, and the number of known n-grams.

        `text` must be lower-case letters and spaces, with one space at each end.
        """
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids = self.letters[np.minimum(points, len(self.letters) - 1)]
        width = len(self.first)
        pair = ids[:-1] * width + ids[1:]
        found = np.concatenate(
            (self.first[ids], self.second[pair], self.third[self.pairs[pair[:-1]] * width + ids[2:]])
        )
        found = found[found > 0]
        return self.rows.take(found, axis=0).sum(axis=0).astype(np.float64), len(found)

    def frequent_letters(self, column: int, least: float) -> frozenset[str]:
        """Return the letters that have at least the fraction `least` in the profile of the language in
        `column`.
        """
        rows = self.first[self.letters]
        frequent = (rows > 0) & (self.rows[rows, column] >= np.log(least + ALPHA))
        return frozenset(chr(point) for point in np.flatnonzero(frequent))


def profiled_languages() -> frozenset[str]:
    """Return the codes of the languages for which langdetect has a letter profile."""
    folder = files("langdetect").joinpath("profiles")
    return frozenset(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def load_profiles(languages: Sequence[str]) -> ProfileTable:
    """Load the letter profiles of `languages` as one table, with the columns in the same order.

    A profile that langdetect lacks is taken from the word lists. Raises `ProfileError` for a language without
    a profile in either.
    """
    known, made = profiled_languages(), listed_words().profiles
    if missing := [language for language in languages if language not in known and language not in made]:
        raise ProfileError(
            f"there is no letter profile to detect the language {', '.join(missing)}; use one of: "
            f"{', '.join(sorted(known))}"
        )
    profiles = [made[language] if language in made else _read(language) for language in languages]
    grams = sorted(set().union(*profiles))
    row_of = {gram: row for row, gram in enumerate(grams, 1)}
    rows = np.zeros((len(grams) + 1, len(languages)), dtype=np.float32)
    for column, profile in enumerate(profiles):
        own = np.fromiter(map(row_of.__getitem__, profile), np.int64, len(profile))
        rows[own, column] = np.fromiter(profile.values(), np.float32, len(profile))
    rows[1:] = np.log(rows[1:] + ALPHA)
    return _arrange(tuple(languages), grams, rows)


def _read(language: str) -> dict[str, float]:
    """Read a language's profile from langdetect: lower-case n-gram → its fraction of the n-grams of that
    length.
    """
    blob = files("langdetect").joinpath("profiles", language).read_bytes()
    profile = msgspec.json.decode(blob, type=_Profile)
    longest, totals = len(profile.n_words), [1, *profile.n_words]
    found: dict[str, float] = {}
    lowers = "\n".join(profile.freq).lower().split("\n")
    for lower, (gram, count) in zip(lowers, profile.freq.items(), strict=True):
        length = len(gram)
        if len(lower) == length <= longest and lower != " ":
            found[lower] = found.get(lower, 0.0) + count / totals[length]
    return found


def _arrange(languages: tuple[str, ...], grams: Sequence[str], rows: NDArray[np.float32]) -> ProfileTable:
    """Build the table's look-up arrays for the n-grams `grams`, whose scores are in rows 1, 2,
    … of `rows`.
    """
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

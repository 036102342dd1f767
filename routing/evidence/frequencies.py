"""Word frequencies of each language, in one immutable table.

They come from the lists of `routing.evidence.listed` and from hand-written lists. A word that a language's
list lacks gets a probability below that of the rarest word in the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from routing.evidence.listed import STEP, ListedWords, listed_words
from routing.evidence.words import known_words, written_words

_FOLD = str.maketrans(
    {
        **{chr(point): normalize("NFD", chr(point))[0] for point in range(0xC0, 0x180)},
        "æ": "ae",
        "þ": "th",
        "ß": "ss",
        "ø": "o",
        "ð": "d",
        "ł": "l",
        "đ": "d",
        "ı": "i",
    }
)


_COMMONEST = -3.0
"""log(p) of the first word in a hand-written list. The next words follow Zipf's law."""
_WRITTEN = -9.5
"""Minimum log(p) of a word in a hand-written list."""
CANDIDATE_FLOOR, BACKGROUND_FLOOR = -14.5, -11.9
"""log(p) of a word that is not in the list of a candidate or of a background language. The lists of
background languages are shorter, so their value is higher.
"""
_PART, _NAME = 0.4, 0.2
"""Weights of a compound word that is known by its last part only, and of a name. An ordinary word has weight
1.
"""
_SHORTEST_COMPOUND, _SHORTEST_PART = 7, 4
"""Minimum length in letters of a compound and of its parts."""
FOLDING = 2.0
"""Penalty in nats for a word that is typed without its accents."""


@dataclass(frozen=True, slots=True)
class FrequencyTable:
    """Word frequencies: log(p) of each word in each language."""

    exact: Mapping[str, int]
    """Maps each word to its row in `levels`."""
    typed: Mapping[str, int]
    """Maps each word without accents to the row in `levels` of the accented words that it may stand for."""
    levels: NDArray[np.int8]
    """Array [row, language]: how far the word's log(p) is above that of an unlisted word (`floors`), in steps
    of 0.25 nats (`STEP`); 0 for words that the language does not list.
    """
    floors: NDArray[np.float64]
    """For each language, the log(p) of a word that is not in its list."""

    def score(self, words: Sequence[str], names: Sequence[str], *, plain: bool) -> NDArray[np.float64] | None:
        """Return the log-likelihood of `words` and `names` by language; None if no list has any of them.

        An unknown word is looked up by its end, because it may be a new compound whose last part is known.
        `plain` is True if the text has only letters a to z, so that it may have been typed without accents.
        """
        rows: list[int] = []
        parts: list[int] = []
        for word in words:
            if row := self._row(word, plain):
                rows.append(row)
            elif len(word) >= _SHORTEST_COMPOUND and (row := self._last_part(word, plain)):
                parts.append(row)
        named = [row for name in names if (row := self._row(name, plain))]
        if not (rows or parts or named):
            return None
        found = self._sum(rows)
        for weight, some in ((_PART, parts), (_NAME, named)):
            if some:
                found += weight * self._sum(some)
        return found

    def _row(self, word: str, plain: bool) -> int | None:
        return (plain and self.typed.get(word)) or self.exact.get(word)

    def _last_part(self, word: str, plain: bool) -> int | None:
        for start in range(_SHORTEST_PART - 1, len(word) - _SHORTEST_PART):
            if row := self._row(word[start:], plain):
                return row
        return None

    def _sum(self, rows: Sequence[int]) -> NDArray[np.float64]:
        return self.levels[rows].sum(axis=0, dtype=np.int32) * STEP + len(rows) * self.floors


def fold(word: str) -> str:
    """Return `word` without accents, as typed on a keyboard that lacks its letters."""
    return word.translate(_FOLD)


def load_frequencies(candidates: Sequence[str], background: Sequence[str]) -> FrequencyTable:
    """Load the table of word frequencies, with a column for each language. Columns of languages without a
    list are 0.
    """
    columns = (*candidates, *background)
    floors = np.full(len(columns), CANDIDATE_FLOOR)
    floors[len(candidates) :] = BACKGROUND_FLOOR
    known, written = listed_words(), known_words()
    least = np.array(_WRITTEN)
    if not any(code in known.languages or code in written for code in columns):
        return FrequencyTable({}, {}, np.zeros((1, len(columns)), dtype=np.int8), floors)
    exact = dict(known.rows)
    strange = sorted(frozenset[str]().union(*(written.get(code, ()) for code in columns)) - exact.keys())
    exact.update(zip(strange, range(len(exact) + 1, len(exact) + len(strange) + 1), strict=True))
    levels = np.zeros((len(exact) + 1, len(columns)), dtype=np.int8)
    for column, code in enumerate(columns):
        if code in known.languages:
            rows, logarithms = known.languages[code]
            levels[rows, column] = _above(logarithms, floors[column])
        by_hand = [exact[word] for word in written.get(code, ())]
        levels[by_hand, column] = np.maximum(levels[by_hand, column], _above(least, floors[column]))
        if code == "no":
            _add_nynorsk(levels[:, column], exact, floors[column], known, written["sv"])
    typed, extra = _typed_plainly(known, strange, exact, levels)
    levels = np.concatenate((levels, extra))
    levels.setflags(write=False)
    return FrequencyTable(exact, typed, levels, floors)


def _above(logarithms: NDArray[np.float64], floor: float) -> NDArray[np.int8]:
    """Convert log(p) to integer levels from 0 to 127: the distance above `floor` in steps of 0.25 nats
    (`STEP`).
    """
    return np.clip(np.rint((logarithms - floor) / STEP), 0, 127).astype(np.int8)


def _add_nynorsk(
    levels: NDArray[np.int8],
    exact: Mapping[str, int],
    floor: float,
    known: ListedWords,
    swedish: frozenset[str],
) -> None:
    """Add the hand-written Nynorsk words to the column of Norwegian. Nynorsk has no frequency list, so Zipf's
    law gives the frequencies. Skip words that are Swedish too.
    """
    rows, logarithms = known.languages["sv"]
    common = frozenset(rows[logarithms >= _WRITTEN].tolist())
    ranked = {exact[word]: rank for rank, word in enumerate(written_words("nn"), 1) if word not in swedish}
    ours = {row: rank for row, rank in ranked.items() if row not in common}
    found = _above(_COMMONEST - np.log(list(ours.values())), floor)
    levels[list(ours)] = np.maximum(levels[list(ours)], found)


def _typed_plainly(
    known: ListedWords, strange: Sequence[str], exact: Mapping[str, int], levels: NDArray[np.int8]
) -> tuple[dict[str, int], NDArray[np.int8]]:
    """Make rows for words that are typed without their accents. Returns a map from such words to rows, and
    the rows to append to `levels`.

    Such a row has, for each language, the highest level of the accented words that it may stand for, less a
    penalty.
    """
    typed = dict(zip(known.typed, range(len(known.typed)), strict=True))
    accented = [(typed.setdefault(fold(word), len(typed)), word) for word in strange if not word.isascii()]
    extra = np.zeros((len(typed), levels.shape[1]), dtype=np.int8)
    extra[: len(known.typed)] = np.maximum.reduceat(levels[known.accented], known.firsts, axis=0)
    for number, word in accented:
        np.maximum(extra[number], levels[exact[word]], out=extra[number])
    extra = np.maximum(extra, round(FOLDING / STEP)) - np.int8(round(FOLDING / STEP))
    theirs = np.zeros(len(typed), dtype=np.int64)
    theirs[: len(known.plain)] = known.plain
    for word in (*strange, *(fold(word) for _, word in accented)):
        if word in typed and word in exact:
            theirs[typed[word]] = exact[word]
    extra = np.maximum(extra, levels[theirs])
    return dict(zip(typed, range(len(levels), len(levels) + len(typed)), strict=True)), extra

"""Scores the words of a text for each language of its script, as a log-likelihood.

Four kinds of evidence are added: letter statistics, word frequencies, endings, and letters that a language
does not use. The weights in `routing.evidence.weights` were fitted on one half of labelled texts and
evaluated on the other.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routing.evidence import letters
from routing.evidence.frequencies import load_frequencies
from routing.evidence.profiles import ProfileTable, load_profiles
from routing.evidence.weights import WEIGHTS, Weights
from routing.evidence.words import NEUTRAL, PHRASES, known_words
from routing.reading.names import Words
from routing.settings import OTHER

Scores = NDArray[np.float64]

_COMMON_LETTER = 5e-4
"""Minimum fraction of a letter in a language's profile for the letter to count as used. It applies to
languages that `letters.USED` does not list.
"""
_BASE = frozenset(string.ascii_lowercase + "'")
SHARED_BY = 4
"""In a message of one or two words, word frequencies are ignored if at least this many languages list each
word. For example, "ja" is "yes" in some languages and "and" in Finnish.
"""
MOST_NEUTRAL = 2
"""Maximum number of words in a message whose word frequencies are ignored because many languages share the
words.
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence in one text for each language."""

    scores: Scores
    """Relative log-likelihood (natural log) of each language and of `xx` (something else); all 0 if there is
    no evidence.
    """
    grams: int
    """Number of letter n-grams of the text that are in the profiles."""
    known: tuple[str, ...]
    """Words of the text that are in the hand-written lists, and the whole message if it is a known phrase."""


class Scorer:
    """Scores texts of one script. Immutable, so any thread may use it."""

    def __init__(
        self, candidates: Sequence[str], background: Sequence[str], weights: Weights = WEIGHTS
    ) -> None:
        """Load the tables of letters and words for these languages. Raises `ProfileError` for a language
        without a letter profile.
        """
        self.labels = (*candidates, OTHER)
        self._weights = weights
        self._profiles = load_profiles((*candidates, *background))
        self._frequencies = load_frequencies(candidates, background)
        self._candidates = len(candidates)
        columns = {language: column for column, language in enumerate(candidates)}
        used = {
            language: _letters_of(self._profiles, column, language) for language, column in columns.items()
        }
        own = {language: frozenset(found) for language, found in letters.OWN.items() if language in columns}
        own[OTHER] = frozenset(letters.ELSEWHERE) - frozenset[str]().union(*used.values())
        self._rows: list[Scores] = []
        self._known = _speakers(known_words(), columns) | _speakers(_by_language(PHRASES), columns)
        self._endings = self._index(letters.ENDINGS, columns, 0.0, weights.ending)
        self._letters = self._index(own, columns, weights.letter)
        self._phrases = self._index(_by_language(PHRASES), columns, weights.phrase)
        self._matrix = np.stack(self._rows)
        self._foreign = {
            letter: frozenset(column for language, column in columns.items() if letter not in used[language])
            for letter in frozenset[str](letters.ELSEWHERE).union(*used.values(), *letters.OWN.values())
        }

    def score(self, read: Words) -> Evidence:
        """Return the evidence of the words in `read` for each language and for `xx` (something else). Names
        count with a small weight. Takes time linear in the number of letters.
        """
        words = read.telling
        if NEUTRAL.issuperset(words):
            return Evidence(np.zeros(len(self.labels)), 0, ())
        text = f" {' '.join(words)} ".replace("'", " ")
        plain = text.isascii()
        likelihood, grams = self._profiles.score(text)
        likelihood *= self._weights.profile
        distinct = tuple(dict.fromkeys(words))
        frequencies = None
        if not self._is_neutral(distinct):
            frequencies = self._frequencies.score(distinct, read.names, plain=plain)
        if frequencies is not None:
            likelihood += self._weights.frequency * frequencies
        scores = likelihood[: self._candidates + 1].copy()
        scores[-1] = likelihood[self._candidates :].max()
        scores -= scores.max()
        known = tuple(word for word in distinct if word in self._known)
        found = [row for word in distinct if (row := self._ending(word)) is not None]
        if not plain:
            found += [self._letters[letter] for letter in dict.fromkeys(text) if letter in self._letters]
            for word in distinct:
                if not word.isascii():
                    scores[list(self._foreign_to(word))] -= self._weights.foreign
        phrase = " ".join(read.all) if len(read.all) <= 5 else ""
        if (row := self._phrases.get(phrase)) is not None:
            found.append(row)
            known = tuple(dict.fromkeys((phrase, *known)))
        if found:
            scores += self._matrix[found].sum(axis=0)
        elif not grams and frequencies is None:
            return Evidence(np.zeros(len(self.labels)), 0, ())
        scores[-1] -= self._weights.penalty
        return Evidence(scores, grams, known)

    def languages_of(self, word: str) -> tuple[str, ...]:
        """Return the labels, languages or `xx`, for which `word` from `Evidence.known` is evidence."""
        return self._known.get(word, ())

    def _is_neutral(self, words: Sequence[str]) -> bool:
        """Return True if a message has one or two words that many languages share, such as "ja"."""
        return len(words) <= MOST_NEUTRAL and all(
            len(self._known.get(word, ())) >= SHARED_BY for word in words
        )

    def _ending(self, word: str) -> int | None:
        for length in range(min(letters.LONGEST_ENDING, len(word) - 2), letters.SHORTEST_ENDING - 1, -1):
            row = self._endings.get(word[-length:])
            if row is not None:
                return row
        return None

    def _foreign_to(self, word: str) -> frozenset[int]:
        return frozenset[int]().union(*(self._foreign.get(letter, frozenset()) for letter in word))

    def _index(
        self,
        lists: Mapping[str, Iterable[str]],
        columns: Mapping[str, int],
        weight: float,
        shared: float = 0.0,
    ) -> dict[str, int]:
        """Map each ending, letter or phrase to a row of scores. Items that belong to the same languages share
        one row.

        A row adds `weight` to the score of each of these languages, and divides the weight `shared` among
        them.
        """
        told: dict[str, set[int]] = {}
        for language, items in lists.items():
            for item in items:
                told.setdefault(item, set()).add(columns.get(language, len(columns)))
        rows: dict[frozenset[int], int] = {}
        for languages in map(frozenset, told.values()):
            if languages not in rows:
                rows[languages] = len(self._rows)
                row = np.zeros(len(self.labels))
                row[list(languages)] = weight + shared / len(languages)
                self._rows.append(row)
        return {item: rows[frozenset(languages)] for item, languages in told.items()}


def _speakers(lists: Mapping[str, Iterable[str]], columns: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Map each word or phrase to the labels, languages or `xx`, whose lists contain it."""
    found: dict[str, tuple[str, ...]] = {}
    for language in (*columns, *(language for language in lists if language not in columns)):
        label = language if language in columns else OTHER
        for item in lists.get(language, ()):
            if label not in (had := found.get(item, ())):
                found[item] = (*had, label)
    return found


def _letters_of(table: ProfileTable, column: int, language: str) -> frozenset[str]:
    if language in letters.USED:
        return frozenset(letters.USED[language])
    return table.frequent_letters(column, _COMMON_LETTER) - _BASE


def _by_language(phrases: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for phrase, language in phrases.items():
        found.setdefault(language, []).append(phrase)
    return found

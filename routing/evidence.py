"""How much the words of a text tell for each language of its script, as a log-likelihood.

Four kinds of evidence add up: letter statistics, known words, endings, and letters that a language has not.
The weights were fitted on half of some 18,000 labelled sentences and word pairs, and judged on the rest.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from routing import letters
from routing.profiles import ProfileTable, load_profiles
from routing.settings import OTHER
from routing.words import PHRASES, known_words

Scores = NDArray[np.float64]

PROFILE, WORD, RARE_WORD, LETTER, RARE_ENDING, FOREIGN, PHRASE = 0.21, 2.2, 1.5, 1.7, 1.1, 5.0, 4.0
"""Weight of: the log-likelihood of the letter statistics; each distinct word known, and a share among the
languages that have it on top; each own letter present; each ending, shared among the languages that have it;
each word with a foreign letter; a known phrase."""
PENALTY = 2.4
"""Taken from `xx`, whose best profile out of many fits any noise better than one profile does."""
_COMMON_LETTER = 5e-4
"""A language without a row in `letters.USED` uses the letters at least this frequent in its profile."""
_BASE = frozenset(string.ascii_lowercase + "'")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one text tells."""

    scores: Scores
    """Log-likelihood (natural log, relative) for each label; all zero where nothing tells."""
    grams: int
    """Letter groups found in the profiles."""
    known: tuple[str, ...]
    """Words, and the whole message where it is a known phrase, that lists hold."""


class Scorer:
    """Scores texts of one script. Immutable once made, so any thread may use it."""

    def __init__(self, candidates: Sequence[str], background: Sequence[str]) -> None:
        """Load the profiles; raises `ProfileError` where there is none for a language."""
        self.labels = (*candidates, OTHER)
        self._table = load_profiles((*candidates, *background))
        self._candidates = len(candidates)
        columns = {language: column for column, language in enumerate(candidates)}
        used = {language: _letters_of(self._table, column, language) for language, column in columns.items()}
        own = {language: frozenset(found) for language, found in letters.OWN.items() if language in columns}
        own[OTHER] = frozenset(letters.ELSEWHERE) - frozenset[str]().union(*used.values())
        self._rows: list[Scores] = []
        self._words = self._index(known_words(), columns, WORD, RARE_WORD)
        self._endings = self._index(letters.ENDINGS, columns, 0.0, RARE_ENDING)
        self._letters = self._index(own, columns, LETTER)
        self._phrases = self._index(_by_language(PHRASES), columns, PHRASE)
        self._matrix = np.stack(self._rows)
        self._foreign = {
            letter: frozenset(column for language, column in columns.items() if letter not in used[language])
            for letter in frozenset[str](letters.ELSEWHERE).union(*used.values(), *letters.OWN.values())
        }

    def score(self, words: Sequence[str]) -> Evidence:
        """Weigh `words` (lower-case, in order); time is linear in their letters."""
        if not words:
            return Evidence(np.zeros(len(self.labels)), 0, ())
        text = f" {' '.join(words)} ".replace("'", " ")
        likelihood, grams = self._table.score(text)
        scores = np.append(
            likelihood[: self._candidates], likelihood[self._candidates :].max(initial=-np.inf)
        )
        scores = PROFILE * (scores - scores.max())
        distinct = tuple(dict.fromkeys(words))
        known = tuple(word for word in distinct if word in self._words)
        found = [self._words[word] for word in known]
        found += [row for word in distinct if (row := self._ending(word)) is not None]
        if not text.isascii():
            found += [self._letters[letter] for letter in dict.fromkeys(text) if letter in self._letters]
            for word in distinct:
                if not word.isascii():
                    scores[list(self._foreign_to(word))] -= FOREIGN
        phrase = self._phrases.get(text.strip()) if len(words) <= 5 else None
        if phrase is not None:
            found.append(phrase)
            known = tuple(dict.fromkeys((text.strip(), *known)))
        if found:
            scores += self._matrix[found].sum(axis=0)
        elif not grams:
            return Evidence(np.zeros(len(self.labels)), 0, ())
        scores[-1] -= PENALTY
        return Evidence(scores, grams, known)

    def languages_of(self, word: str) -> tuple[str, ...]:
        """Labels that a word of `Evidence.known` tells for."""
        row = self._words.get(word, self._phrases.get(word))
        return (
            () if row is None else tuple(self.labels[column] for column in np.flatnonzero(self._matrix[row]))
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
        """Item → row; the row of a set of languages adds `weight` and a share of `shared` to each of them."""
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


def _letters_of(table: ProfileTable, column: int, language: str) -> frozenset[str]:
    if language in letters.USED:
        return frozenset(letters.USED[language])
    return table.frequent_letters(column, _COMMON_LETTER) - _BASE


def _by_language(phrases: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for phrase, language in phrases.items():
        found.setdefault(language, []).append(phrase)
    return found

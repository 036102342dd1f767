"""Finds the known name that is closest to a misspelt one, at most two edits away."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

MAX_EDITS = 2
"""An edit inserts, removes or changes a character, or swaps two neighbours. Case does not count."""


LONGEST = 64
"""Maximum length of a name to compare; all fields are shorter."""
SHORT = 3
"""Known names up to this length (`n`, `rid`) are never suggested, since nearly any name is near them."""


def may_be_near(name: str, known: frozenset[str]) -> bool:
    """A fast filter: False only if `nearest` would find nothing. Takes some microseconds.

    Two names within two edits differ by at most two in length, and by at most four in the set of their
    letters.
    """
    if len(name) > LONGEST:
        return False
    letters, length = _letters(name.lower()), len(name)
    return any(
        abs(length - other) <= MAX_EDITS and (letters ^ mask).bit_count() <= 2 * MAX_EDITS
        for mask, other in _sketches(known)
    )


def nearest(name: str, known: frozenset[str], *, cautious: bool = False) -> str | None:
    """Return the name in `known` with the fewest edits, at most `MAX_EDITS`, else None.

    `cautious`: less than half of the characters may differ, so `date` is not taken for `name`. Costs about as
    much as the square of a name's length, however many are known: names within two edits of each other are
    equal after at most two removals from each (symmetric deletion, Garbe 2012).
    """
    if not may_be_near(name, known):
        return None
    asked, index = name.lower(), _index(known)
    found = {one for rest in _removals(asked) for one in index.get(rest, ())}
    for edits, one in sorted((_edits(asked, one.lower()), one) for one in found):
        most = (len(one) - 1) // 2 if cautious else MAX_EDITS
        if edits <= min(most, MAX_EDITS) and (len(one) > SHORT or not edits):
            return one
    return None


@lru_cache(maxsize=64)
def _sketches(known: frozenset[str]) -> tuple[tuple[int, int], ...]:
    """The letters and the length of each name."""
    return tuple((_letters(name.lower()), len(name)) for name in known)


def _letters(name: str) -> int:
    """The set of a name's characters, as bits."""
    letters = 0
    for character in name:
        letters |= 1 << (ord(character) & 63)
    return letters


@lru_cache(maxsize=64)
def _index(known: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
    """Maps each remainder after at most `MAX_EDITS` removals to the names it can come from."""
    index: dict[str, tuple[str, ...]] = {}
    for name in sorted(known):
        for rest in _removals(name.lower()):
            index[rest] = (*index.get(rest, ()), name)
    return index


def _removals(name: str) -> set[str]:
    ones = [name[:place] + name[place + 1 :] for place in range(len(name))]
    twos = [one[:place] + one[place + 1 :] for first, one in enumerate(ones) for place in range(first)]
    return {name, *ones, *twos}


def _edits(first: str, second: str) -> int:
    """The distance of two short names (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, above, row = row, row if i == 1 else before, [i]
        for j, b in enumerate(second, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == second[j - 2] and first[i - 2] == b:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]

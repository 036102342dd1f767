"""Finds the known field name that is closest to a misspelt name, at most two edits away."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

MAX_EDITS = 2
"""Maximum number of edits between a misspelt name and a known name. An edit inserts, removes or changes a
character, or swaps two neighbours. Case does not count.
"""


LONGEST = 64
"""Maximum length of a name to compare with known names, all of which are shorter."""
SHORT = 3
"""Known names up to this length (such as `n` and `rid`) are suggested only if case is the only difference,
since nearly any name is close to them.
"""


def may_be_near(name: str, known: frozenset[str]) -> bool:
    """Return False only if `nearest` would find nothing. This is a fast filter that takes some microseconds.

    Two names within two edits of each other differ by at most two in length, and by at most four in their
    sets of letters.
    """
    if len(name) > LONGEST:
        return False
    letters, length = _letters(name.lower()), len(name)
    return any(
        abs(length - other) <= MAX_EDITS and (letters ^ mask).bit_count() <= 2 * MAX_EDITS
        for mask, other in _sketches(known)
    )


def nearest(name: str, known: frozenset[str], *, cautious: bool = False) -> str | None:
    """Return the name in `known` that is the fewest edits away from `name`, at most `MAX_EDITS`; else None.

    With `cautious`, less than half of the characters may differ, so `date` is not taken for `name`. The time
    grows with the square of the name's length, however many names are known: names within two edits of each
    other are equal after at most two removals from each name (symmetric deletion, Garbe 2012).
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
    """Return the set of letters (as bits) and the length of each known name."""
    return tuple((_letters(name.lower()), len(name)) for name in known)


def _letters(name: str) -> int:
    """Return the set of a name's characters, as bits of a number."""
    letters = 0
    for character in name:
        letters |= 1 << (ord(character) & 63)
    return letters


@lru_cache(maxsize=64)
def _index(known: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
    """Map each string that results from removing at most `MAX_EDITS` characters of a known name to the names
    from which it results.
    """
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
    """Return the number of edits between two short names (optimal string alignment)."""
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

"""The known name that a misspelt one is meant for: at most two edits away."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

MAX_EDITS = 2
"""An edit inserts, removes or changes a character, or swaps two neighbours. Case does not count."""


SHORT = 3
"""Characters of a known name that is never meant, since nearly any name is near it: `n`, `rid`."""


def nearest(name: str, known: frozenset[str], *, cautious: bool = False) -> str | None:
    """The nearest of `known` within `MAX_EDITS`, else None.

    `cautious` lets less than half of a name's characters differ: `date` is then not meant for `name`.
    Costs about as much as the square of the longest known name, however many are known and however long
    `name` is: names within two edits of each other are equal after at most two removals from each
    (symmetric deletion, Garbe 2012).
    """
    index, longest = _index(known)
    if len(name) > longest + MAX_EDITS:
        return None
    asked = name.lower()
    found = {one for rest in _removals(asked) for one in index.get(rest, ())}
    for edits, one in sorted((_edits(asked, one.lower()), one) for one in found):
        most = (len(one) - 1) // 2 if cautious else MAX_EDITS
        if edits <= min(most, MAX_EDITS) and (len(one) > SHORT or not edits):
            return one
    return None


@lru_cache(maxsize=64)
def _index(known: frozenset[str]) -> tuple[Mapping[str, tuple[str, ...]], int]:
    """What is left of each name after at most `MAX_EDITS` removals → the names, and the longest's length."""
    index: dict[str, tuple[str, ...]] = {}
    for name in sorted(known):
        for rest in _removals(name.lower()):
            index[rest] = (*index.get(rest, ()), name)
    return index, max(map(len, known), default=0)


def _removals(name: str) -> set[str]:
    left = {name}
    for _ in range(MAX_EDITS):
        left |= {rest[:place] + rest[place + 1 :] for rest in left for place in range(len(rest))}
    return left


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

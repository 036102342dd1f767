"""Detect texts that equal, or nearly equal, a text that was kept before."""

from __future__ import annotations

from collections import defaultdict

from adapters.datasets.minhash import Hashes, bands, key, shingles, similarity


class Deduplicator:
    """Remembers texts, and detects whether a new text is a duplicate or near duplicate of one of them.

    Two texts are near duplicates if their Jaccard similarity is at least `near`. As in `oneseek data check`,
    MinHash bands find the candidates. Here every candidate is compared, so every pair that the command would
    report is found, in whatever order the texts are added.
    """

    def __init__(self, near: float) -> None:
        self._near = near
        self._keys: set[int] = set()
        self._shingles: list[Hashes] = []
        self._bands: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._shingles)

    def repeats(self, text: str) -> bool:
        """True if `text` is a duplicate or near duplicate of a text that was added before."""
        if key(text) in self._keys:
            return True
        found = shingles(text)
        near = {row for place in _places(found) for row in self._bands.get(place, ())}
        return any(similarity(found, self._shingles[row]) >= self._near for row in near)

    def add(self, text: str) -> None:
        """Remember `text`, so that `repeats` detects its duplicates."""
        self._keys.add(key(text))
        found = shingles(text)
        for place in _places(found):
            self._bands[place].append(len(self._shingles))
        self._shingles.append(found)


def _places(found: Hashes) -> list[tuple[int, int]]:
    return [(band, int(value)) for band, value in enumerate(bands([found])[0])]

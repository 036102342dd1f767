"""The texts that were kept so far, and whether another one repeats any of them, exactly or nearly."""

from __future__ import annotations

from collections import defaultdict

from adapters.datasets.minhash import Hashes, bands, key, shingles, similarity


class Deduplicator:
    """Takes texts; tells which are known already. Finds every pair that `oneseek data check` would.

    Two texts are near duplicates where their similarity is at least `near`. Candidates are found as there, by
    MinHash bands, and all of them are compared, so the order in which texts come makes no difference to what
    is found between two of them.
    """

    def __init__(self, near: float) -> None:
        self._near = near
        self._keys: set[int] = set()
        self._shingles: list[Hashes] = []
        self._bands: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._shingles)

    def repeats(self, text: str) -> bool:
        """Whether `text` is a known one, or nearly."""
        if key(text) in self._keys:
            return True
        found = shingles(text)
        near = {row for place in _places(found) for row in self._bands.get(place, ())}
        return any(similarity(found, self._shingles[row]) >= self._near for row in near)

    def add(self, text: str) -> None:
        """`text` is known from now on."""
        self._keys.add(key(text))
        found = shingles(text)
        for place in _places(found):
            self._bands[place].append(len(self._shingles))
        self._shingles.append(found)


def _places(found: Hashes) -> list[tuple[int, int]]:
    return [(band, int(value)) for band, value in enumerate(bands([found])[0])]

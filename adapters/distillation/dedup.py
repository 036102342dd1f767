"""Find out if a text repeats one that was kept before, exactly or nearly."""

from __future__ import annotations

from collections import defaultdict

from adapters.datasets.minhash import Hashes, bands, key, shingles, similarity


class Deduplicator:
    """Remembers texts and recognises repetitions. Finds every pair that `oneseek data check` would find.

    Two texts are near duplicates if their similarity is at least `near`. Candidates come from MinHash bands,
    as in that command, and all of them are compared. So the order of the texts does not matter.
    """

    def __init__(self, near: float) -> None:
        self._near = near
        self._keys: set[int] = set()
        self._shingles: list[Hashes] = []
        self._bands: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._shingles)

    def repeats(self, text: str) -> bool:
        """True if `text` was added before, or is nearly the same as a text that was."""
        if key(text) in self._keys:
            return True
        found = shingles(text)
        near = {row for place in _places(found) for row in self._bands.get(place, ())}
        return any(similarity(found, self._shingles[row]) >= self._near for row in near)

    def add(self, text: str) -> None:
        """Add `text` to the known texts."""
        self._keys.add(key(text))
        found = shingles(text)
        for place in _places(found):
            self._bands[place].append(len(self._shingles))
        self._shingles.append(found)


def _places(found: Hashes) -> list[tuple[int, int]]:
    return [(band, int(value)) for band, value in enumerate(bands([found])[0])]

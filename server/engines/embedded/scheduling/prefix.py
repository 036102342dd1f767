"""Longest common prefixes of token sequences, exactly and fast.

Tokens are kept as 8 bytes each, so that comparing is one `memcmp`. A row is looked at more closely only
where it is longer in common than the best so far: one comparison for each row, and a bisection for the
few that improve. There are no hashes, hence no collisions to guard against.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Protocol, TypeVar

from server.request import AdapterMix

WIDTH = 8
"""Bytes for each token."""

PrefixKey = tuple[AdapterMix, str]
"""Voice and cache salt: keys and values are shared only where both are equal."""


class PrefixHolder(Protocol):
    """Something that holds computed tokens."""

    @property
    def key(self) -> PrefixKey | None:
        """Whose keys and values they are."""
        ...

    @property
    def data(self) -> bytes | bytearray:
        """The tokens, encoded."""
        ...


T = TypeVar("T", bound=PrefixHolder)


def encode_tokens(tokens: Iterable[int]) -> bytes:
    """`tokens` as 8 bytes each. Raises `OverflowError` past 63 bits."""
    return array("q", tokens).tobytes()


def common(a: bytes | bytearray, b: bytes | bytearray) -> int:
    """Tokens that two encoded sequences have in common from the start."""
    low, high = 0, min(len(a), len(b)) // WIDTH
    while low < high:
        middle = (low + high + 1) // 2
        if a[low * WIDTH : middle * WIDTH] == b[low * WIDTH : middle * WIDTH]:
            low = middle
        else:
            high = middle - 1
    return low


def longest(candidates: Iterable[T], key: PrefixKey, wanted: bytes, minimum: int) -> tuple[T | None, int]:
    """The candidate of the same key with most tokens in common with `wanted`, and how many.

    The first of equals. None and 0 where no candidate has at least `minimum` (1 or more) tokens in common.
    """
    found: T | None = None
    best = minimum - 1
    probe = wanted[: minimum * WIDTH]
    for candidate in candidates:
        if len(probe) != (best + 1) * WIDTH:
            break
        if candidate.key == key and candidate.data.startswith(probe):
            found, best = candidate, common(candidate.data, wanted)
            probe = wanted[: (best + 1) * WIDTH]
    return found, best if found is not None else 0

"""Longest common prefixes of token sequences, exactly and fast.

Tokens are encoded as 8 bytes each, so that comparing them is one `memcmp`. One comparison for each row checks
if it beats the best row so far. Only then a bisection finds its exact length. No hashes are used, so there
are no collisions.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Protocol, TypeVar

from server.request import AdapterMix

WIDTH = 8
"""Bytes of an encoded token."""

PrefixKey = tuple[AdapterMix, str]
"""Adapter mix and cache salt: keys and values are shared only if both are equal."""


class PrefixHolder(Protocol):
    """Something that holds computed tokens."""

    @property
    def key(self) -> PrefixKey | None:
        """Key of the tokens' keys and values; None if there are none."""
        ...

    @property
    def data(self) -> bytes | bytearray:
        """The prefix's tokens, encoded as bytes."""
        ...


T = TypeVar("T", bound=PrefixHolder)


def encode_tokens(tokens: Iterable[int]) -> bytes:
    """Encode `tokens` as 8 bytes each. Raises `OverflowError` for ids of more than 63 bits."""
    return array("q", tokens).tobytes()


def common(a: bytes | bytearray, b: bytes | bytearray) -> int:
    """Return the length, in tokens, of the longest common prefix of two encoded sequences."""
    low, high = 0, min(len(a), len(b)) // WIDTH
    while low < high:
        middle = (low + high + 1) // 2
        if a[low * WIDTH : middle * WIDTH] == b[low * WIDTH : middle * WIDTH]:
            low = middle
        else:
            high = middle - 1
    return low


def longest(candidates: Iterable[T], key: PrefixKey, wanted: bytes, minimum: int) -> tuple[T | None, int]:
    """Find the candidate with the same key and the longest common prefix with `wanted`.

    Returns the candidate and the prefix's length in tokens; the first candidate if several are equal.
    Returns None and 0 if no candidate shares at least `minimum` (1 or more) tokens.
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

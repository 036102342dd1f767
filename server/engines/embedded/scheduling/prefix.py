"""Finds the longest common prefixes of token sequences, exactly and fast.

Tokens are encoded as 8 bytes each, so that two sequences are compared with one `memcmp`. For each candidate,
one comparison checks if it beats the best candidate so far. Only then a bisection finds the exact length. No
hashes are used, so there are no collisions.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Protocol, TypeVar

from server.request import AdapterMix

WIDTH = 8
"""Number of bytes of an encoded token."""

PrefixKey = tuple[AdapterMix, str]
"""The adapters (with their weights) and the cache salt of a request. Cached keys and values are shared only
between requests where both are equal.
"""


class PrefixHolder(Protocol):
    """Something that holds the keys and values of known tokens, such as a KV cache slot."""

    @property
    def key(self) -> PrefixKey | None:
        """Adapters and cache salt with which the keys and values were computed; None if there are no keys and
        values.
        """
        ...

    @property
    def data(self) -> bytes | bytearray:
        """The tokens whose keys and values are held, encoded as 8 bytes each."""
        ...


T = TypeVar("T", bound=PrefixHolder)


def encode_tokens(tokens: Iterable[int]) -> bytes:
    """Encode each token id as 8 bytes. Raises `OverflowError` for ids of more than 63 bits."""
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
    """Find the candidate with the same key that has the longest common prefix with `wanted`.

    Returns the candidate and the prefix's length in tokens. Among candidates with equal lengths, it returns
    the first. Returns None and 0 if no candidate shares at least `minimum` tokens (1 or more).
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

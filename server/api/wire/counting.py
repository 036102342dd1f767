"""Counts the values in a JSON text before it is decoded.

NumPy does the counting and releases the GIL meanwhile. In invalid JSON, counts may be wrong after the first
error, where a decoder would stop anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLICE = 1 << 18
"""Number of bytes of JSON in which values are counted in one step."""

_QUOTE, _BACKSLASH, _COMMA = 34, 92, 44
_OPENING, _CLOSING = (91, 123), (93, 125)


@dataclass(frozen=True, slots=True)
class JsonCounts:
    """Numbers of values in a JSON text, or limits of these numbers."""

    containers: int
    """Number of objects and arrays."""
    strings: int
    """Number of strings, including keys."""
    values: int
    """Number of values of any kind, without keys."""
    members: int
    """Number of members (fields or items) of the outermost object or array."""

    def within(self, limits: JsonCounts) -> bool:
        """Return True if no count is above its limit."""
        return (
            self.containers <= limits.containers
            and self.strings <= limits.strings
            and self.values <= limits.values
            and self.members <= limits.members
        )


def count_at_most(text: bytes) -> JsonCounts:
    """Return upper bounds of the counts. This is fast, but also counts characters inside strings."""
    part = np.frombuffer(text, np.uint8)
    containers = sum(_count(part == sign) for sign in _OPENING)
    commas = _count(part == _COMMA)
    return JsonCounts(containers, _count(part == _QUOTE) // 2, containers + commas + 1, commas + 1)


def count_values(text: bytes, limits: JsonCounts | None = None) -> JsonCounts:
    """Return exact counts. If a count exceeds `limits`, stop and return the counts so far."""
    containers = quotes = commas = outermost = depth = 0
    found = JsonCounts(0, 0, 1, 1)
    inside = escaped = False
    whole = np.frombuffer(text, np.uint8)
    for start in range(0, len(whole), SLICE):
        part = whole[start : start + SLICE]
        ends, escaped = _quotes(part, escaped)
        outside = np.bitwise_xor.accumulate(ends.view(np.uint8)) == inside
        inside ^= bool(_count(ends) % 2)
        opens = ((part == _OPENING[0]) | (part == _OPENING[1])) & outside
        closes = ((part == _CLOSING[0]) | (part == _CLOSING[1])) & outside
        between = (part == _COMMA) & outside
        depths = np.cumsum(opens.view(np.int8) - closes.view(np.int8), dtype=np.int32) + depth
        depth = int(depths[-1])
        containers += _count(opens)
        quotes += _count(ends)
        commas += _count(between)
        outermost += _count(between & (depths == 1))
        found = JsonCounts(containers, quotes // 2, containers + commas + 1, outermost + 1)
        if limits is not None and not found.within(limits):
            break
    return found


def _quotes(part: NDArray[np.uint8], escaped: bool) -> tuple[NDArray[np.bool_], bool]:
    """Return which bytes of `part` are quotes that begin or end a string, and whether its last byte escapes
    the next byte.

    `escaped` is True if the byte before `part` escapes its first byte.
    """
    quotes = part == _QUOTE
    if escaped:
        quotes[0] = False
    slashes = np.flatnonzero(part == _BACKSLASH)
    if escaped and slashes.size and slashes[0] == 0:
        slashes = slashes[1:]
    if not slashes.size:
        return quotes, False
    # In a run of backslashes, every second one is itself escaped by the one before it.
    begins = np.ones(slashes.size, np.bool_)
    begins[1:] = slashes[1:] != slashes[:-1] + 1
    run = np.maximum.accumulate(np.where(begins, slashes, 0))
    after = slashes[(slashes - run) % 2 == 0] + 1
    last = bool(after.size and after[-1] == len(part))
    quotes[after[: after.size - last]] = False
    return quotes, last


def _count(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))

"""Encodes a large answer's JSON in pieces, so that no step takes long and memory never holds the
whole JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import cast

import msgspec

PIECE = 64 * 1024
"""Minimum size of a piece of JSON in bytes, except for the last piece."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class JsonItems:
    """A JSON array whose items are computed only when they are encoded, `together` at a time."""

    items: Iterable[object]
    together: int = 32


def encode_pieces(value: object) -> Iterator[bytes]:
    """Encode `value` as JSON, in pieces of about `PIECE` bytes.

    Dicts, lists and `JsonItems` are encoded item by item, and any other value in one step.
    """
    gathered: list[bytes] = []
    size = 0
    for part in _parts(value):
        gathered.append(part)
        size += len(part)
        if size >= PIECE:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    if gathered:
        yield b"".join(gathered)


def _parts(value: object) -> Iterator[bytes]:
    match value:
        case JsonItems():
            yield from _items(value)
        case dict():
            yield b"{"
            for index, (key, item) in enumerate(cast("dict[str, object]", value).items()):
                yield (b"," if index else b"") + _encode(key) + b":"
                yield from _parts(item)
            yield b"}"
        case list():
            yield b"["
            for index, item in enumerate(cast("list[object]", value)):
                if index:
                    yield b","
                yield from _parts(item)
            yield b"]"
        case _:
            yield _encode(value)


def _items(array: JsonItems) -> Iterator[bytes]:
    items, before = iter(array.items), b"["
    while batch := list(islice(items, array.together)):
        yield before + _encode(batch)[1:-1]
        before = b","
    yield b"[]" if before == b"[" else b"]"

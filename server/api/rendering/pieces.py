"""A large answer's JSON, made and encoded piece by piece, so that no step takes long or holds all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import cast

import msgspec

PIECE = 64 * 1024
"""Bytes of a piece, as soon as there are as many."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class JsonItems:
    """An array of an answer whose items are made only when they are encoded, `together` at a time."""

    items: Iterable[object]
    together: int = 32


def encode_pieces(value: object) -> Iterator[bytes]:
    """The JSON of `value` in pieces of about `PIECE` bytes.

    Objects and lists are followed down to each `JsonItems`; anything else is encoded in one step.
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

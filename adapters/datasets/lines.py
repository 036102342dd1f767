"""The lines of a JSONL file, one at a time and of bounded length, each with its place in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 4 << 20
"""Longest line that is read; a longer one is passed over and reported."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line that is not blank."""

    number: int
    """Counted from 1."""
    start: int
    """Its first byte, counted from the start of the file."""
    data: bytes | None
    """Without the line's end; None where it is longer than `MAX_LINE_BYTES`."""
    end: int
    """The first byte after it."""


def iterate_lines(path: Path, *, limit: int = MAX_LINE_BYTES) -> Iterator[TextLine]:
    """Every line of `path` but blank ones. Memory is one line. Raises `OSError`."""
    with path.open("rb") as file:
        number, start = 0, 0
        while data := file.readline(limit + 2):
            number += 1
            whole = data.rstrip(b"\r\n")
            too_long = len(whole) > limit
            if not data.endswith(b"\n"):
                _skip_line(file)
            end = file.tell()
            if too_long or whole.strip():
                yield TextLine(number, start, None if too_long else whole, end)
            start = end


def line_at(file: BinaryIO, start: int) -> bytes:
    """The line of an open file that begins at byte `start`, at most `MAX_LINE_BYTES` of it."""
    file.seek(start)
    return file.readline(MAX_LINE_BYTES + 2).rstrip(b"\r\n")


def _skip_line(file: BinaryIO) -> None:
    while (data := file.readline(_BLOCK)) and not data.endswith(b"\n"):
        pass

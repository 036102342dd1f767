"""Read the lines of a JSONL file one by one, with bounded length, each with its line number and its position
in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 4 << 20
"""Longest line that is read. A longer one is skipped and reported."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line that is not blank."""

    number: int
    """Number of the line in its file, from 1."""
    start: int
    """Position of the line's first byte in the file."""
    data: bytes | None
    """The line without its end. None if it is longer than `MAX_LINE_BYTES`."""
    end: int
    """Position of the first byte after it."""


def iterate_lines(path: Path, *, limit: int = MAX_LINE_BYTES) -> Iterator[TextLine]:
    """Yield every line of `path` that is not blank. Needs memory for one line. Raises `OSError`."""
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
    """Return the line of an open file that begins at byte `start`, cut at `MAX_LINE_BYTES`."""
    file.seek(start)
    return file.readline(MAX_LINE_BYTES + 2).rstrip(b"\r\n")


def _skip_line(file: BinaryIO) -> None:
    while (data := file.readline(_BLOCK)) and not data.endswith(b"\n"):
        pass

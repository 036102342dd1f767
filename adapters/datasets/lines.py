"""Read a JSONL file line by line. Each line has a maximum length and comes with its line number and byte
offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 4 << 20
"""Maximum number of bytes of a line. The text of a longer line is skipped, and the line is reported as too
long.
"""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class TextLine:
    """One non-blank line of a file."""

    number: int
    """Line number in the file, counted from 1."""
    start: int
    """Byte offset of the line's first byte in the file."""
    data: bytes | None
    """The line's bytes without the newline. None if the line is longer than the limit `MAX_LINE_BYTES`."""
    end: int
    """Byte offset of the first byte after the line."""


def iterate_lines(path: Path, *, limit: int = MAX_LINE_BYTES) -> Iterator[TextLine]:
    """Yield every non-blank line of the file `path`, holding one line in memory. Raises `OSError`."""
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
    """Return the line that begins at byte offset `start` of an open file. A line longer than the limit
    `MAX_LINE_BYTES` is cut off there.
    """
    file.seek(start)
    return file.readline(MAX_LINE_BYTES + 2).rstrip(b"\r\n")


def _skip_line(file: BinaryIO) -> None:
    while (data := file.readline(_BLOCK)) and not data.endswith(b"\n"):
        pass

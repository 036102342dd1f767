"""Read a JSONL file line by line. Each line has a maximum length and comes with its line number and byte
offset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adapters.errors import FileRefusedError

MAX_LINE_BYTES = 4 << 20
"""Maximum number of bytes of a line. The text of a longer line is skipped, and the line is reported as too
long.
"""
_BLOCK = 1 << 20
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")
_UNPACK = "Unpack the file first."
_BEGINNINGS: Mapping[bytes, tuple[str, str]] = {
    b"\xff\xfe": ("is in UTF-16", "Save it in UTF-8."),
    b"\xfe\xff": ("is in UTF-16", "Save it in UTF-8."),
    b"\x1f\x8b": ("is compressed with gzip", _UNPACK),
    b"PK\x03\x04": ("is a ZIP archive", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("is compressed with Zstandard", _UNPACK),
    b"PAR1": ("is in the format Parquet", "Convert it to JSON lines, for example with pandas."),
}
"""Maps the first bytes of a file that does not hold lines of JSON to its format, and what to do."""


class FileFormError(FileRefusedError):
    """The file is not a text file in UTF-8 with one example in each line, but has another form."""


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
    """Yield every non-blank line of the file `path`, holding one line in memory. Raises `OSError`, and
    `FileFormError` for a JSON array, a compressed file or UTF-16.
    """
    with path.open("rb") as file:
        _check_form(path, file)
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


def _check_form(path: Path, file: BinaryIO) -> None:
    """Raise `FileFormError` if the beginning of the file shows that it has no lines of JSON or text."""
    head = file.read(64)
    file.seek(0)
    for beginning, (form, remedy) in _BEGINNINGS.items():
        if head.startswith(beginning):
            raise FileFormError(path, f"the file {form}", remedy)
    if _ARRAY.match(head):
        remedy = "Write each object of the array on a line of its own, for example with jq -c '.[]'."
        raise FileFormError(path, "the file is one JSON array, not lines with one JSON object each", remedy)


def line_at(file: BinaryIO, start: int) -> bytes:
    """Return the line that begins at byte offset `start` of an open file. A line longer than the limit
    `MAX_LINE_BYTES` is cut off there.
    """
    file.seek(start)
    return file.readline(MAX_LINE_BYTES + 2).rstrip(b"\r\n")


def _skip_line(file: BinaryIO) -> None:
    while (data := file.readline(_BLOCK)) and not data.endswith(b"\n"):
        pass

"""Read text corpora from disk: list their files, and read the documents one by one from any position.

A `.txt` file is one document of any length. A `.jsonl` file has one document on each line: `{"text": …}`, or
a conversation as `oneseek train identity` reads it. Both may be compressed (`.gz`, `.zst`). A `.parquet` file
has its documents in the column `text`. A long document is read in pieces, so memory use does not depend on
the size of a file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pyarrow
import pyarrow.parquet

from adapters.datasets.example import ExampleMessage, read_example
from adapters.datasets.lines import MAX_LINE_BYTES
from adapters.files.jsonfile import canonical_json
from adapters.lora.digest import file_digest
from adapters.training.loop.options import OptionError

KINDS = (".txt", ".jsonl")
PACKINGS = ("", ".gz", ".zst")
PARQUET = ".parquet"
PIECE_BYTES = 64 << 10
"""Maximum number of bytes of a text file that are read as one piece. If possible, a piece ends after a
paragraph, a line or a word.
"""
_ROWS = 64


class CorpusPosition(NamedTuple):
    """A position in a corpus: the number of the file in the order of reading, and the offset in that file."""

    file: int = 0
    offset: int = 0
    """Offset in the file: bytes of the uncompressed text, or rows of a Parquet table."""
    inside: int = 0
    """0 at the beginning of a document. Inside a document: 1 if it is training data, 2 if it is held out."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A document of a corpus, or a part of a long document."""

    text: str
    messages: tuple[ExampleMessage, ...] = ()
    """The messages of the document if it is a conversation. Empty if it is text."""
    first: bool = True
    last: bool = True
    held: bool = False
    """True if the document is held out for evaluation. A hash of its content, or of a long document's first
    piece, decides this.
    """


@dataclass(frozen=True, slots=True)
class CorpusRejection:
    """An item of a corpus that is left out because it is not a valid document, with its place and
    the reason.
    """

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """A text corpus: a file, or all files of a folder."""

    root: Path
    files: tuple[Path, ...]
    weight: float
    held_out: float
    """Fraction of the documents that are held out for evaluation."""

    @classmethod
    def find(cls, root: Path, weight: float, held_out: float) -> Corpus:
        """Return the corpus at the file or folder `root`. Raises `OptionError` if it does not exist, is
        empty, or holds a file of an unsupported type.
        """
        if root.is_dir():
            paths = sorted(path for path in root.rglob("*") if path.is_file() and not _hidden(path, root))
            unknown = next((path for path in paths if not _readable(path)), None)
        else:
            paths, unknown = [root], None if _readable(root) else root
        kinds = "give .txt, .jsonl (also as .gz or .zst) or .parquet files"
        if not root.exists():
            raise OptionError("data", f"the path {root} does not exist; {kinds}")
        if unknown is not None:
            raise OptionError("data", f"the file {unknown} has an unsupported type; {kinds}")
        if not paths:
            raise OptionError("data", f"the folder {root} is empty; {kinds}")
        return cls(root, tuple(paths), weight, held_out)

    def digest(self, cache: Path | None = None) -> str:
        """Return `sha256:…` of the corpus, computed from the name and SHA-256 of each of its files."""
        base = self.root if self.root.is_dir() else self.root.parent
        listed = [[path.relative_to(base).as_posix(), file_digest(path, cache)] for path in self.files]
        return f"sha256:{hashlib.sha256(canonical_json(listed)).hexdigest()}"

    def pieces(
        self, order: Sequence[int], start: CorpusPosition
    ) -> Iterator[tuple[Piece | CorpusRejection, CorpusPosition]]:
        """Yield the pieces of the documents from the position `start`, with the files in the order `order`.
        Each piece comes with the position after it.
        """
        for number in range(start.file, len(order)):
            path = self.files[order[number]]
            place = start if number == start.file else CorpusPosition(number)
            if path.name.endswith(PARQUET):
                yield from self._table(path, place)
                continue
            with _open(path) as file:
                _skip(file, place.offset)
                yield from (self._lines if ".jsonl" in path.suffixes else self._text)(path, file, place)

    def _text(
        self, path: Path, file: BinaryIO, place: CorpusPosition
    ) -> Iterator[tuple[Piece | CorpusRejection, CorpusPosition]]:
        waiting, offset, inside = b"", place.offset, place.inside
        while True:
            waiting += file.read(PIECE_BYTES - len(waiting))
            if not waiting:
                return
            ended = len(waiting) < PIECE_BYTES
            part = waiting if ended else waiting[: _cut(waiting)]
            waiting = waiting[len(part) :]
            ended = ended or not (waiting or file.peek(1))  # pyright: ignore[reportAttributeAccessIssue] # buffered
            where = f"{path}, byte {offset}"
            offset += len(part)
            held = inside == 2 if inside else self._holds(part)
            after = CorpusPosition(place.file, offset, 0 if ended else 2 if held else 1)
            try:
                yield Piece(part.decode(), first=not inside, last=ended, held=held), after
            except UnicodeDecodeError as error:
                yield CorpusRejection(where, f"the text is not UTF-8 ({error.reason})"), after
            inside = after.inside

    def _lines(
        self, path: Path, file: BinaryIO, place: CorpusPosition
    ) -> Iterator[tuple[Piece | CorpusRejection, CorpusPosition]]:
        offset = place.offset
        while line := file.readline(MAX_LINE_BYTES + 2):
            where = f"{path}, byte {offset}"
            offset += len(line)
            whole, rest = len(line) < MAX_LINE_BYTES + 2, line
            while not rest.endswith(b"\n") and (rest := file.readline(MAX_LINE_BYTES)):
                offset += len(rest)
                whole = False
            after = CorpusPosition(place.file, offset)
            if not whole:
                yield CorpusRejection(where, f"the line is longer than {MAX_LINE_BYTES} bytes"), after
            elif line.strip():
                yield self._line(path, line, where), after

    def _line(self, path: Path, line: bytes, where: str) -> Piece | CorpusRejection:
        try:
            fields = json.loads(line)
            if isinstance(fields, dict) and isinstance(fields.get("text"), str):
                return self._document(fields["text"], where)
            if isinstance(fields, dict) and ("messages" in fields or "instruction" in fields):
                return Piece("", read_example(line.strip(), path).messages, held=self._holds(line.strip()))
        except RecursionError:
            return CorpusRejection(where, "the line's JSON is nested too deeply")
        except ValueError as error:
            return CorpusRejection(where, str(error))
        return CorpusRejection(where, "the line has neither text nor messages")

    def _table(
        self, path: Path, place: CorpusPosition
    ) -> Iterator[tuple[Piece | CorpusRejection, CorpusPosition]]:
        row = 0
        with pyarrow.parquet.ParquetFile(path) as table:
            if "text" not in table.schema_arrow.names:
                yield (
                    CorpusRejection(str(path), "the table has no column named text"),
                    CorpusPosition(place.file, 1),
                )
                return
            for batch in table.iter_batches(_ROWS, columns=["text"]):
                if row + len(batch) <= place.offset:
                    row += len(batch)
                    continue
                for text in cast("list[object]", batch.column(0).to_pylist()):
                    row += 1
                    if row > place.offset:
                        yield self._document(text, f"{path}, row {row}"), CorpusPosition(place.file, row)

    def _document(self, text: object, where: str) -> Piece | CorpusRejection:
        if not isinstance(text, str) or not text.strip():
            return CorpusRejection(where, "the text is empty")
        try:
            return Piece(text, held=self._holds(text.encode()))
        except UnicodeEncodeError:
            return CorpusRejection(where, "the text holds half of a surrogate pair, which is not a character")

    def _holds(self, data: bytes) -> bool:
        return int.from_bytes(hashlib.sha256(data).digest()[:8]) < self.held_out * 2**64


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _readable(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(PARQUET) or any(name.endswith(kind + how) for kind in KINDS for how in PACKINGS)


def _open(path: Path) -> io.BufferedReader:
    if path.suffix == ".gz":
        return io.BufferedReader(cast("io.RawIOBase", gzip.open(path, "rb")), PIECE_BYTES)
    if path.suffix == ".zst":
        stream = pyarrow.input_stream(str(path), compression="zstd")
        return io.BufferedReader(cast("io.RawIOBase", stream), PIECE_BYTES)
    return path.open("rb")


def _skip(file: BinaryIO, count: int) -> None:
    if not isinstance(getattr(file, "raw", None), io.FileIO):
        while count and (data := file.read(min(count, 1 << 20))):
            count -= len(data)
    else:
        file.seek(count)


def _cut(data: bytes) -> int:
    """Return the number of bytes of `data` to use as one piece. The cut lies in the second half: after a
    paragraph if possible, else a line, a word, or a character.
    """
    half = len(data) // 2
    for mark in (b"\n\n", b"\n", b" "):
        if (found := data.rfind(mark, half)) >= 0:
            return found + len(mark)
    end = len(data)
    while data[end - 1] & 0xC0 == 0x80:
        end -= 1
    return end - 1

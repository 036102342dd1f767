"""Read SentencePiece's model file without its library: a protocol buffer of vocabulary pieces and a few
settings.

Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto; its encoding:
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from adapters.errors import BaseModelError

MAX_SPIECE_BYTES = 64 << 20
_MODELS = {1: "unigram", 2: "bpe"}
_REMEDY = "Download the complete spiece.model again."


class PieceKind(IntEnum):
    """Kind of a vocabulary piece, numbered as in SentencePiece's format."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class VocabularyPiece:
    """One entry of the tokenizer's vocabulary. Its index in the vocabulary is its token id."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class SpieceModel:
    """A SentencePiece model: its pieces and settings."""

    algorithm: str
    """The tokenizer's algorithm: `bpe` or `unigram`."""
    pieces: tuple[VocabularyPiece, ...]
    byte_fallback: bool
    unk_id: int
    charsmap: bytes
    """SentencePiece's compiled map from characters to normalised characters. Empty if characters are not
    changed.
    """
    dummy_prefix: bool
    """True if a space is added at the beginning of a text."""
    collapses_spaces: bool
    """True if spaces at the ends are removed, and runs of spaces collapsed."""

    @classmethod
    def read(cls, path: Path) -> SpieceModel:
        """Read the file at `path`. Raises `BaseModelError` if it is damaged or needs an unsupported
        feature.
        """
        try:
            data = path.read_bytes() if path.stat().st_size <= MAX_SPIECE_BYTES else None
        except OSError as problem:
            raise BaseModelError(path, f"the file cannot be read ({problem.strerror})", _REMEDY) from problem
        if data is None:
            raise BaseModelError(path, f"the file is larger than {MAX_SPIECE_BYTES} bytes", _REMEDY)
        try:
            return _parse(data)
        except _UnsupportedFieldError as problem:
            raise BaseModelError(
                path,
                str(problem),
                "Convert the file to a tokenizer.json with transformers, and put that into the same folder.",
            ) from problem
        except (ValueError, struct.error) as problem:
            raise BaseModelError(
                path, f"the file is not a SentencePiece model ({problem})", _REMEDY
            ) from problem


class _UnsupportedFieldError(ValueError):
    """The SentencePiece model has a setting that the `tokenizers` library does not support."""


def _parse(data: bytes) -> SpieceModel:
    pieces: list[VocabularyPiece] = []
    trainer: dict[int, int | bytes] = {}
    normaliser: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(dict(_fields(_bytes(value)))))
        elif number == 2:
            trainer |= dict(_fields(_bytes(value)))
        elif number == 3:
            normaliser |= dict(_fields(_bytes(value)))
    if not pieces:
        raise ValueError(
            "spiece.model does not hold any vocabulary pieces, so it is damaged or not a tokenizer, "
            "and is not loaded"
        )
    kind = _integer(trainer.get(3, 1))
    if kind not in _MODELS:
        raise _UnsupportedFieldError(
            f"spiece.model has model_type {kind}; OneSeek converts only the types unigram (1) and bpe (2)"
        )
    if _integer(trainer.get(24, 0)):
        raise _UnsupportedFieldError(
            "spiece.model sets the option treat_whitespace_as_suffix, which OneSeek cannot convert"
        )
    if not _integer(normaliser.get(5, 1)):
        raise _UnsupportedFieldError(
            "spiece.model sets escape_whitespaces to false, which OneSeek cannot convert"
        )
    if any(piece.kind is PieceKind.UNUSED for piece in pieces):
        raise _UnsupportedFieldError(
            "spiece.model holds vocabulary pieces of the kind UNUSED, which OneSeek cannot convert"
        )
    unknown = [place for place, piece in enumerate(pieces) if piece.kind is PieceKind.UNKNOWN]
    if len(unknown) != 1:
        raise ValueError(
            f"spiece.model holds {len(unknown)} vocabulary pieces for unknown text, but must hold exactly "
            "one, so it is not loaded"
        )
    return SpieceModel(
        algorithm=_MODELS[kind],
        pieces=tuple(pieces),
        byte_fallback=bool(_integer(trainer.get(35, 0))),
        unk_id=unknown[0],
        charsmap=_bytes(normaliser.get(2, b"")),
        dummy_prefix=bool(_integer(normaliser.get(3, 1))),
        collapses_spaces=bool(_integer(normaliser.get(4, 1))),
    )


def _piece(fields: dict[int, int | bytes]) -> VocabularyPiece:
    score = fields.get(2, b"\0\0\0\0")
    return VocabularyPiece(
        text=_bytes(fields.get(1, b"")).decode("utf-8"),
        score=struct.unpack("<f", _bytes(score))[0],
        kind=PieceKind(_integer(fields.get(3, 1))),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) for each field of the protobuf message `data`. A value is an integer or
    bytes.
    """
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _varint(data, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(
                "spiece.model is damaged and is not loaded: "
                f"it has the unknown protobuf wire type {wire} at byte {place}"
            )
        if place + size > len(data):
            raise ValueError(
                "spiece.model is incomplete and is not loaded: "
                f"it ends in the middle of protobuf field {number}"
            )
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Decode the protobuf varint that begins at byte `place` of `data`. Returns (value, position after it).
    Raises `ValueError` for an incomplete number.
    """
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError(
                "spiece.model is incomplete and is not loaded: it ends in the middle of a number"
            )
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError(
        f"spiece.model is damaged and is not loaded: it has a number of more than 64 bits at byte {place}"
    )


def _integer(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError(
            "spiece.model is damaged and is not loaded: one of its fields holds bytes instead of a number"
        )
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError(
            "spiece.model is damaged and is not loaded: one of its fields holds a number instead of bytes"
        )
    return value

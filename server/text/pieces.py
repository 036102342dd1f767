"""Converts each token of a vocabulary to the bytes that it adds to a text.

Supports byte-level BPE (GPT-2, Llama 3, Mistral's Tekken) and vocabularies like SentencePiece's (Llama 2,
Mistral: spaces as U+2581, byte fallback). Refuses decoders in which a token's bytes depend on neighbouring
tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_FALLBACK_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_SUPPORTED = "ByteLevel, Metaspace, ByteFallback, Fuse, Replace and Strip (leading spaces, after Fuse)"


class UnsupportedTokenizerError(ValueError):
    """The server cannot use the base's tokenizer. The message has the reason and the supported decoders."""


def _byte_alphabet() -> dict[str, int]:
    """Map each character of GPT-2's byte-level vocabulary to its byte. The character of a printable byte is
    that byte; all other bytes have characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(value): value for value in printable}
    hidden = [value for value in range(256) if value not in set(printable)]
    return alphabet | {chr(0x100 + place): value for place, value in enumerate(hidden)}


_ALPHABET = _byte_alphabet()


class Pieces:
    """Converts tokens to bytes, as the section `decoder` of a tokenizer.json describes.

    Raises `UnsupportedTokenizerError` for a decoder in which a token's bytes depend on neighbouring tokens.
    """

    def __init__(self, decoder: Mapping[str, Any] | None) -> None:
        if decoder is None:
            raise UnsupportedTokenizerError(
                "tokenizer.json has no decoder to turn tokens into text; it needs a decoder of the kinds "
                f"{_SUPPORTED}"
            )
        self._replacements: list[tuple[str, str]] = []
        self._byte_level = False
        self._byte_fallback = False
        self._first_without = ""
        self._fused = False
        self.leading_spaces = 0
        """Maximum number of spaces that are dropped from the beginning of a decoded text."""
        for part in decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]:
            self._add(part)

    def _add(self, part: Mapping[str, Any]) -> None:
        match part:
            case {"type": "ByteLevel"}:
                self._byte_level = True
            case {"type": "ByteFallback"}:
                self._byte_fallback = True
            case {"type": "Fuse"}:
                self._fused = True
            case {"type": "Metaspace", "replacement": str(mark)}:
                self._replacements.append((mark, " "))
                if part.get("prepend_scheme", "always") != "never":
                    self._first_without = mark
            case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
                self._replacements.append((old, new))
            case {"type": "Strip", "content": " ", "start": int(start), "stop": 0} if self._fused:
                self.leading_spaces = start
            case _:
                raise UnsupportedTokenizerError(
                    f"tokenizer.json's decoder has the step {dict(part)}, with which answers cannot be "
                    f"streamed; supported steps: {_SUPPORTED}"
                )

    def of(self, token: str, first: bool = False) -> bytes:
        """Return the UTF-8 bytes of `token`, which may be only a part of a character. With `first`, the token
        begins a text.
        """
        if self._byte_fallback and (found := _FALLBACK_BYTE.fullmatch(token)):
            return bytes.fromhex(found[1])
        if self._byte_level:
            values = [_ALPHABET.get(character) for character in token]
            if None in values:
                return token.encode()
            return bytes(value for value in values if value is not None)
        if first and self._first_without:
            token = token.replace(self._first_without, "")
        for old, new in self._replacements:
            token = token.replace(old, new)
        return token.encode()

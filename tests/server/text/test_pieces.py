"""Tokens as bytes, against what the library's own decoders make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import decoders

from server.text.pieces import Pieces, UnsupportedTokenizerError


def of(decoder: decoders.Decoder, token: str, first: bool = False) -> bytes:
    return Pieces(json.loads(decoder.__getstate__())).of(token, first)


FALLBACK = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


@pytest.mark.parametrize("token", ["<0x41>", "<0x0a>", "<0X41>", "<0xZZ>", "<0x411>", "▁a▁", "é"])
def test_fallback_tokens(token: str) -> None:
    assert of(FALLBACK, token).decode() == FALLBACK.decode([token])


@pytest.mark.parametrize("token", ["Ġa", "Ã©", "<|fin|>", "<|due parole|>", "<|日本|>", "é"])
def test_byte_level_tokens_and_those_that_are_added_to_them(token: str) -> None:
    assert of(decoders.ByteLevel(), token).decode("utf-8", "replace") == decoders.ByteLevel().decode([token])


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("token", ["▁a", "▁▁a", "a▁b", "▁"])
def test_metaspace_tokens_at_the_front_and_later(scheme: Any, token: str) -> None:
    decoder = decoders.Metaspace("▁", prepend_scheme=scheme)
    assert of(decoder, token, first=True).decode() == decoder.decode([token])
    assert "x" + of(decoder, token).decode() == decoder.decode(["x", token])


@pytest.mark.parametrize(
    "decoder",
    [
        decoders.WordPiece(),
        decoders.CTC(),
        decoders.Sequence([decoders.Strip(" ", 1, 0), decoders.Fuse()]),
        decoders.Sequence([decoders.Fuse(), decoders.Strip("_", 1, 0)]),
    ],
)
def test_tokens_that_depend_on_their_neighbours_are_refused(decoder: decoders.Decoder) -> None:
    with pytest.raises(UnsupportedTokenizerError):
        of(decoder, "a")

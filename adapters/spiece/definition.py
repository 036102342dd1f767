"""Convert a SentencePiece model to a tokenizer of the `tokenizers` library that gives the same tokens.

SentencePiece's own rules are in its `normalizer.cc`, `bpe_model.cc` and `unigram_model.cc`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from adapters.spiece.model import PieceKind, SpieceModel, VocabularyPiece

SPACE = "▁"
"""The character (U+2581) that stands for a space in a vocabulary piece."""
_ALWAYS, _NEVER = -0.1, -1e6
"""Score of user-defined symbols, as in `unigram_model.cc`, and score of pieces that must never be chosen for
a text.
"""
_BYTE_NAME = "(?<=<)(?=0x[0-9A-F]{2}>)"
"""Matches the position after `<` where a text spells out the name of a byte piece, such as `<0x41>`. The text
is split there, because it does not mean that byte.
"""
_MARK = "\ufdd5"
"""A character that is inserted between two others so that a normaliser does not join them. It is a Unicode
noncharacter, which no text contains.
"""
_JOINED = "[\\p{M}\u1ab0-\u1aff\u200c\u200d]"
"""Regular expression for characters, such as accents, that combine with the character before them into one
visible character.
"""
_LARGEST = 0x10000
"""First character that takes four bytes in UTF-8. All characters before it take at most three."""


def build_tokenizer(
    model: SpieceModel, special: Sequence[str], before: Sequence[normalizers.Normalizer]
) -> Tokenizer:
    """Build a tokenizer of the `tokenizers` library from a SentencePiece model.

    The `special` tokens are found in the text first; the text between them is normalised by `before` and then
    by the model's own rules. A special token that is not a piece of the model gets the next free id.
    """
    tokenizer = Tokenizer(_bpe(model) if model.algorithm == "bpe" else _unigram(model))
    tokenizer.normalizer = normalizers.Sequence([*before, *_normalisers(model)])
    symbols = _symbols(model) if model.algorithm == "bpe" else []
    if symbols or model.algorithm == "unigram":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*symbols, _BYTE_NAME])), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *_without_prefix(model)]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    return tokenizer


def _bpe(model: SpieceModel) -> models.BPE:
    vocabulary = {piece.text: place for place, piece in enumerate(model.pieces)}
    return models.BPE(
        vocab=vocabulary,
        merges=_merges(model),
        unk_token=model.pieces[model.unk_id].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
        # User-defined symbols are already separate at this point; no merge produces one.
        ignore_merges=bool(_symbols(model)),
    )


def _merges(model: SpieceModel) -> list[tuple[str, str]]:
    """Return the BPE merges: every pair of pieces that together form a third piece, in order of the third
    piece's score, highest first.

    SentencePiece merges the pair that forms the piece with the highest score. Control, byte and unknown
    pieces are never merged or formed by a merge. User-defined symbols are never split.
    """
    normal = {piece.text: place for place, piece in enumerate(model.pieces) if piece.kind is PieceKind.NORMAL}
    found: list[tuple[float, int, int, str, str]] = []
    for text, place in normal.items():
        score = model.pieces[place].score
        for cut in range(1, len(text)):
            left, right = normal.get(text[:cut]), normal.get(text[cut:])
            if left is not None and right is not None:
                found.append((-score, left, right, text[:cut], text[cut:]))
    found.sort(key=lambda merge: merge[:3])
    return [(left, right) for *_, left, right in found]


def _unigram(model: SpieceModel) -> models.Unigram:
    """Build the unigram model. If two tokenizations of one repeated symbol have equal scores, rounding
    decides between them.
    """

    def score(piece: VocabularyPiece) -> float:
        if piece.kind is PieceKind.NORMAL:
            return piece.score
        return _ALWAYS if piece.kind is PieceKind.USER_DEFINED else _NEVER

    vocabulary = [(piece.text, score(piece)) for piece in model.pieces]
    return models.Unigram(vocabulary, unk_id=model.unk_id, byte_fallback=model.byte_fallback)


def _symbols(model: SpieceModel) -> list[str]:
    """Return regular expressions that match the user-defined symbols, the longest symbol first, because the
    first match is used.
    """
    texts = [piece.text for piece in model.pieces if piece.kind is PieceKind.USER_DEFINED]
    return [re.escape(text) for text in sorted(texts, key=lambda text: (-len(text), text))]


def _normalisers(model: SpieceModel) -> list[normalizers.Normalizer]:
    found: list[normalizers.Normalizer] = []
    if model.charsmap:
        found += _charsmap(model.charsmap)
    if model.collapses_spaces:
        found += [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    found.append(normalizers.Replace(" ", SPACE))
    if model.dummy_prefix:
        found.append(normalizers.Prepend(SPACE))
    if model.collapses_spaces:
        found.append(normalizers.Replace(Regex(rf"{SPACE}+\z"), ""))
    return found


def _charsmap(data: bytes) -> list[normalizers.Normalizer]:
    """Return normalisers that apply SentencePiece's compiled character map to each single character.

    `Precompiled` alone looks up a whole visible character if it has fewer than six bytes, and replaces it by
    the mapping of its first code point: `½` with an accent would lose the accent. So a mark is inserted
    between the two code points before that step, and removed after it.
    """
    mapped = normalizers.Precompiled(data)
    surrogates = range(0xD800, 0xE000)
    changed = [
        character
        for character in (chr(code) for code in range(0xA1, _LARGEST) if code not in surrogates)
        if mapped.normalize_str(character) != character
    ]
    if not changed:
        return [mapped]
    between = Regex(f"(?<=[{''.join(changed)}])(?={_JOINED})")
    return [normalizers.Replace(between, _MARK), mapped, normalizers.Replace(_MARK, "")]


def _without_prefix(model: SpieceModel) -> list[decoders.Decoder]:
    return [decoders.Strip(" ", 1, 0)] if model.dummy_prefix else []

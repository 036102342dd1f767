"""Interface to the grammar library llguidance: gives it a base's tokenizer, sets its limits, and shortens its
error messages.

Imported only when the first grammar is used.
"""

from __future__ import annotations

import re

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from server.grammar.text import GrammarRefusedError
from server.text.tokenizer import Tokenizer

LIMITS = LLParserLimits(
    initial_lexer_fuel=300_000,
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    max_items_in_row=2_000,
    max_lexer_states=20_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
"""Limits on the work that llguidance does for a grammar, at about a tenth of its defaults. Ordinary schemas
stay far below.
"""

_POSITION = re.compile(r"(?:at )?(?P<line>[0-9]+)\((?P<column>[0-9]+)\): ")

_SHOWN = 300
"""Maximum number of characters of llguidance's error message that a client gets."""


def open_tokenizer(tokenizer: Tokenizer) -> LLTokenizer:
    """Return the server's `tokenizer` as an object of llguidance.

    If llguidance reads every token in the base's tokenizer.json as the server does, the object is made from
    this file. Otherwise it gets the bytes of each token from the server's tokenizer, since llguidance does
    not know every decoder (it treats Metaspace's mark for a space as a letter).
    """
    ends = sorted(token for token in tokenizer.eos_ids if token < tokenizer.vocabulary_size)
    try:
        own = LLTokenizer(tokenizer.definition, eos_token=ends or None)
    except ValueError:
        own = None
    if own is not None and _agrees(own, tokenizer):
        return own
    return LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer, ends)), eos_token=ends or None)


def _agrees(reader: LLTokenizer, tokenizer: Tokenizer) -> bool:
    return all(
        token in tokenizer.special_ids or reader.decode_bytes([token]) == tokenizer.token_bytes(token)
        for token in range(tokenizer.vocabulary_size)
    )


class _Vocabulary:
    """The server's tokenizer with the interface that llguidance's `TokenizerWrapper` requires."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, ends: list[int]) -> None:
        self.eos_token_id = ends[0] if ends else None
        self.special_token_ids = sorted(tokenizer.special_ids)
        # A special token has its name, after a mark that no text holds.
        self.tokens = [
            (
                tokenizer.name_of(token).encode()
                if token in tokenizer.special_ids
                else tokenizer.token_bytes(token)
            )
            for token in range(tokenizer.vocabulary_size)
        ]
        self._encode = tokenizer.encode_within

    def __call__(self, text: bytes) -> list[int]:
        return self._encode(text.decode())


def compile_grammar(tokenizer: LLTokenizer, text: str) -> LLMatcher:
    """Compile the grammar `text`, and return a matcher that has not read any token yet.

    Raises `GrammarRefusedError` with llguidance's reason if the grammar is not valid.
    """
    matcher = LLMatcher(tokenizer, text, log_level=0, limits=LIMITS)
    if matcher.is_error():
        raise GrammarRefusedError(complaint(matcher.get_error()))
    return matcher


def complaint(message: str) -> str:
    """Return llguidance's error message as one short line, without the lines of the grammar that it quotes.
    A position in the grammar is written in words, and counts the lines after `HEAD`, which is the server's.
    """
    lines: list[str] = []
    for line in message.splitlines():
        number, bar, _ = line.partition("|")
        digits = number.strip()
        quoted = bar and digits.isascii() and digits.isdigit()
        if quoted or line.strip() in ("^", "<non-verbose/>"):
            continue
        lines.append(line.strip())
    text = " ".join(" ".join(lines).split())
    if at := _POSITION.match(text):
        text = f"line {int(at['line']) - 1}, column {at['column']}: {text[at.end() :]}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"

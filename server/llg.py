"""The way into llguidance: its reading of a base's tokenizer, the limits it works in, what it complains of.

Imported with the first grammar alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from server.grammar import GrammarRefusedError

LIMITS = LLParserLimits(
    initial_lexer_fuel=300_000,
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    max_items_in_row=2_000,
    max_lexer_states=20_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)
"""About a tenth of what llguidance allows itself; ordinary schemas stay far below."""

_SHOWN = 300
"""Characters of a complaint that a client is shown."""


def open_tokenizer(definition: str, eos_ids: Iterable[int], vocabulary: int) -> LLTokenizer:
    """llguidance's view of the tokenizer.json `definition`.

    Raises `GrammarRefusedError` where it cannot read it.
    """
    ends = sorted(token for token in eos_ids if token < vocabulary)
    try:
        return LLTokenizer(definition, eos_token=ends or None)
    except ValueError as error:
        raise GrammarRefusedError("this base's tokenizer cannot be held to a grammar") from error


def compile_grammar(tokenizer: LLTokenizer, text: str) -> LLMatcher:
    """`text`, ready to be followed from its beginning.

    Raises `GrammarRefusedError` with llguidance's reason.
    """
    matcher = LLMatcher(tokenizer, text, log_level=0, limits=LIMITS)
    if matcher.is_error():
        raise GrammarRefusedError(complaint(matcher.get_error()))
    return matcher


def complaint(message: str) -> str:
    """llguidance's message in one short line, without the grammar that it quotes."""
    lines: list[str] = []
    for line in message.splitlines():
        number, bar, _ = line.partition("|")
        if (bar and number.strip().isdigit()) or line.strip() in ("^", "<non-verbose/>"):
            continue
        lines.append(line.strip())
    text = " ".join(" ".join(lines).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"

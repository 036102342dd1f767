"""Measures a request's texts, to decide which may be tokenized on the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from server.text.tokenizer import Tokenizer

INLINE_CHARACTERS = 1024
"""Texts up to this many characters are tokenized on the event loop, within 1 ms; longer ones in a thread."""
VALUE_CHARACTERS = 8
"""Number of characters that each value in a message or tool counts for, in addition to its text, when the
length of texts is compared with `INLINE_CHARACTERS`.
"""


def longest_token(tokenizer: Tokenizer) -> int:
    """Return the length of the vocabulary's longest token in characters, at least 1."""
    return max(1, *(len(tokenizer.token_text(token)) for token in range(tokenizer.vocabulary_size)))


def is_short(texts: Sequence[object]) -> bool:
    """Return True if `texts` have few characters and values in all (see `INLINE_CHARACTERS`)."""
    left = INLINE_CHARACTERS
    pending: list[object] = [list(texts)]
    while pending and left >= 0:
        match pending.pop():
            case str() as text:
                left -= len(text)
            case list() as items:
                left -= VALUE_CHARACTERS * len(cast("list[object]", items))
                pending += cast("list[object]", items) if left >= 0 else []
            case dict() as fields:
                left -= VALUE_CHARACTERS * len(cast("dict[str, object]", fields))
                pending += cast("dict[str, object]", fields).values() if left >= 0 else []
            case _:
                pass
    return left >= 0


def count_characters(value: object) -> int:
    """Return the number of characters in a client's message or tool, without its roles and types."""
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(count_characters, cast("list[object]", value)))
        case dict():
            items = cast("dict[str, object]", value).items()
            return sum(count_characters(item) for key, item in items if key not in ("role", "type"))
        case _:
            return 0

"""Grammars for answers, written in llguidance's Lark syntax, which both engines support.

Pure functions that make a grammar's text. They do not check it (`service` does) and know no request fields.
Syntax: llguidance's docs/syntax.md and docs/json_schema.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

MAX_BYTES = 128 << 10
"""Maximum size of a grammar in bytes, including its schema."""

HEAD = "%llguidance {}\n"
"""Tells every reader that what follows is Lark: vLLM guesses between Lark and GBNF by it."""

SPACING: Mapping[str, object] = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}
"""Whitespace in generated JSON: at most one space after a comma or a colon, none elsewhere.

With flexible whitespace, a model can get stuck in an endless run of spaces.
"""


class GrammarRefusedError(ValueError):
    """A grammar cannot be served. The message has the reason and is safe to show.

    `place` is where in a schema, such as `properties.a.type`; empty for the whole schema.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place


def bounded(text: str) -> str:
    """`text`, if it is small enough for a grammar. Raises `GrammarRefusedError`."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise GrammarRefusedError(f"the schema or grammar is larger than {MAX_BYTES >> 10} KiB; simplify it")
    return text


OBJECT: Mapping[str, object] = {"type": "object"}
"""Any JSON object."""


def json_object() -> str:
    """Any JSON object."""
    return json_schema(OBJECT)


def json_schema(schema: Mapping[str, Any]) -> str:
    """JSON that fits `schema` (JSON Schema, draft 2020-12, as far as llguidance knows it)."""
    return f"{HEAD}start: {json_rule(schema)}\n"


def regex(pattern: str) -> str:
    """Text that `pattern` (Rust's regex syntax, no look-around) matches as a whole."""
    from llguidance import regex_to_lark

    return f"{HEAD}start: /{regex_to_lark(_whole_text(pattern), '')}/\n"


def choice(options: Sequence[str]) -> str:
    """One of `options`, none of them empty, letter for letter."""
    return f"{HEAD}start: {' | '.join(map(literal, options))}\n"


def lark(text: str) -> str:
    """A grammar that is Lark already; its first rule is `start`."""
    return HEAD + _whole_text(text)


def either(one: str, other: str) -> str:
    """Return a grammar that allows what either of two grammars of this module allows."""
    parts = [f"%lark {{\n{text.removeprefix(HEAD)}}}" for text in (one, other)]
    return f"{HEAD}start: one | other\none: {parts[0]}\nother: {parts[1]}\n"


def json_rule(schema: Mapping[str, Any]) -> str:
    """Return the right side of a grammar rule for JSON that fits `schema`."""
    return f"%json {dumps({**schema, 'x-guidance': SPACING})}"


def literal(text: str) -> str:
    """`text` as a Lark string: JSON's, but for one character that has to be escaped."""
    return dumps(text).replace("\x7f", "\\u007f")


def dumps(value: object) -> str:
    """`value` as JSON, with U+FFFD for halves of surrogate pairs."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return msgspec.json.encode(_whole(value)).decode()


def _whole(value: object) -> object:
    """`value` with U+FFFD for each half of a surrogate pair."""
    match value:
        case str():
            return _whole_text(value)
        case Mapping():
            return {_whole(key): _whole(item) for key, item in cast("Mapping[str, object]", value).items()}
        case list() | tuple():
            return [_whole(item) for item in cast("Sequence[object]", value)]
        case _:
            return value


def _whole_text(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

"""Writes grammars for answers in llguidance's Lark syntax, which both engines support.

These pure functions make the text of a grammar. They do not test the grammar (`service` does) and know no
fields of requests. The syntax is described in llguidance's docs/syntax.md and docs/json_schema.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

MAX_BYTES = 128 << 10
"""Maximum size of a grammar in bytes, including the JSON schema in it."""

HEAD = "%llguidance {}\n"
"""First line of every grammar. It tells vLLM, which otherwise guesses between Lark and GBNF, that the syntax
is Lark.
"""

SPACING: Mapping[str, object] = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}
"""White space that generated JSON may contain: at most one space after a comma or a colon.

With flexible white space, a model can get stuck in an endless run of spaces.
"""


_POSITION = re.compile(r"\Aline [0-9]+, column [0-9]+: ")


class GrammarRefusedError(ValueError):
    """The server cannot use a grammar or JSON schema. The message has the reason and is safe to show to a
    client.

    `place` is the path in the JSON schema at which the problem is, such as `properties.a.type`; empty for the
    whole schema.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place

    @property
    def reason(self) -> str:
        """The message without a position in the grammar, which is of use only to who wrote the grammar."""
        return _POSITION.sub("", str(self))


def bounded(text: str) -> str:
    """Return `text` if it is small enough for a grammar. Raises `GrammarRefusedError` if it exceeds
    `MAX_BYTES`.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise GrammarRefusedError(f"the schema or grammar is larger than {MAX_BYTES >> 10} KiB; simplify it")
    return text


OBJECT: Mapping[str, object] = {"type": "object"}
"""JSON schema that any JSON object matches."""


def json_object() -> str:
    """Return a grammar that allows any JSON object."""
    return json_schema(OBJECT)


def json_schema(schema: Mapping[str, Any]) -> str:
    """Return a grammar that allows JSON matching `schema` (JSON Schema, draft 2020-12, as far as llguidance
    supports it).
    """
    return f"{HEAD}start: {json_rule(schema)}\n"


def regex(pattern: str) -> str:
    """Return a grammar that allows text matching `pattern` as a whole (Rust's regex syntax, without
    look-around).
    """
    from llguidance import regex_to_lark

    return f"{HEAD}start: /{regex_to_lark(_whole_text(pattern), '')}/\n"


def choice(options: Sequence[str]) -> str:
    """Return a grammar that allows exactly the texts in `options`, none of which is empty."""
    return f"{HEAD}start: {' | '.join(map(literal, options))}\n"


def lark(text: str) -> str:
    """Return a grammar for `text`, which is in Lark syntax already. Its first rule must be called `start`."""
    return HEAD + _whole_text(text)


def either(one: str, other: str) -> str:
    """Return a grammar that allows what either of two grammars made by this module allows."""
    parts = [f"%lark {{\n{text.removeprefix(HEAD)}}}" for text in (one, other)]
    return f"{HEAD}start: one | other\none: {parts[0]}\nother: {parts[1]}\n"


def json_rule(schema: Mapping[str, Any]) -> str:
    """Return the right side of a Lark rule for JSON that matches `schema`."""
    return f"%json {dumps({**schema, 'x-guidance': SPACING})}"


def literal(text: str) -> str:
    """Return `text` as a string of the Lark syntax: a JSON string in which the character U+007F is escaped
    too.
    """
    return dumps(text).replace("\x7f", "\\u007f")


def dumps(value: object) -> str:
    """Return `value` as JSON text, with U+FFFD for each half of a surrogate pair."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return msgspec.json.encode(_whole(value)).decode()


def _whole(value: object) -> object:
    """Return a copy of `value` with U+FFFD for each half of a surrogate pair in its strings."""
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

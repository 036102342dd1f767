"""Grammars: what an answer must keep to, written in llguidance's Lark syntax, which both engines take.

Pure functions from a wish to a text; none checks it (`service` does) or knows a request's fields.
Syntax: llguidance's docs/syntax.md and docs/json_schema.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

MAX_BYTES = 128 << 10
"""Largest grammar, its schema included."""

_HEAD = "%llguidance {}\n"
"""Tells every reader that what follows is Lark: vLLM guesses between Lark and GBNF by it."""

SPACING: Mapping[str, object] = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}
"""White space of generated JSON: at most one space after a comma or a colon, none elsewhere.

A model cannot then lose itself in a run of blanks, which flexible white space lets it do.
"""


class GrammarRefusedError(ValueError):
    """A grammar that cannot be served; the message says why and is safe to show."""


def bounded(text: str) -> str:
    """`text`, if it is small enough for a grammar. Raises `GrammarRefusedError`."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise GrammarRefusedError(f"it is larger than {MAX_BYTES >> 10} KiB")
    return text


OBJECT: Mapping[str, object] = {"type": "object"}
"""Any JSON object."""


def json_object() -> str:
    """Any JSON object."""
    return json_schema(OBJECT)


def json_schema(schema: Mapping[str, Any]) -> str:
    """JSON that fits `schema` (JSON Schema, draft 2020-12, as far as llguidance knows it)."""
    return f"{_HEAD}start: {_json(schema)}\n"


def regex(pattern: str) -> str:
    """Text that `pattern` (Rust's regex syntax, no look-around) matches as a whole."""
    from llguidance import regex_to_lark

    return f"{_HEAD}start: /{regex_to_lark(_whole_text(pattern), '')}/\n"


def choice(options: Sequence[str]) -> str:
    """One of `options`, none of them empty, letter for letter."""
    return f"{_HEAD}start: {' | '.join(map(_literal, options))}\n"


def lark(text: str) -> str:
    """A grammar that is Lark already; its first rule is `start`."""
    return _HEAD + _whole_text(text)


def tool_calls(
    tools: Mapping[str, Mapping[str, Any]],
    *,
    prefix: int | str | None = None,
    required: bool = True,
    parallel: bool = True,
    name_key: str = "name",
    arguments_key: str = "arguments",
) -> str:
    """Calls of `tools` as a JSON array after a mark: `[TOOL_CALLS][{"name": "f", "arguments": {…}}]`.

    `tools` maps each tool's name to the JSON schema of its arguments, whose `$ref`s stay its own.
    `prefix` is the mark: a special token's id, which no other token sequence spells, or a text, or nothing.
    Without `required` the answer is such calls or free text of any kind; that needs a special token as the
    mark, else the text could hold one that was not meant. Without `parallel` it is one call.
    """
    if not tools:
        raise ValueError("tools is empty; a grammar of calls needs at least one")
    if not required and not isinstance(prefix, int):
        raise ValueError(f"prefix is {prefix!r}; calls beside free text need a special token's id")
    # A tokenizer of SentencePiece's kind may put a space between a special token and what follows.
    mark = f'<[{prefix}]> " "? ' if isinstance(prefix, int) else f"{_literal(prefix)} " if prefix else ""
    more = " (/, ?/ call)*" if parallel else ""
    rules = [
        f"start: {'' if required else 'text | '}calls",
        f'calls: {mark}"[" call{more} "]"',
        f"call: {' | '.join(f'call_{index}' for index in range(len(tools)))}",
    ]
    if not required:
        rules.append(r"text: /(?s:.*)/")
    for index, (name, schema) in enumerate(tools.items()):
        opening = f"{{{_dumps(name_key)}: {_dumps(name)}, {_dumps(arguments_key)}: "
        rules.append(f'call_{index}: {_literal(opening)} arguments_{index} "}}"')
        rules.append(f"arguments_{index}: {_json(schema)}")
    return _HEAD + "\n".join(rules) + "\n"


def named_calls(
    tools: Mapping[str, Mapping[str, Any]], *, begin: int, arguments: int, parallel: bool = True
) -> str:
    """Calls of `tools` one after another: `[TOOL_CALLS]f[ARGS]{…}`.

    `begin` and `arguments` are the ids of the two special tokens; the rest is as in `tool_calls`.
    """
    if not tools:
        raise ValueError("tools is empty; a grammar of calls needs at least one")
    rules = [
        f"start: call{'+' if parallel else ''}",
        f"call: {' | '.join(f'call_{index}' for index in range(len(tools)))}",
    ]
    for index, (name, schema) in enumerate(tools.items()):
        rules.append(f"call_{index}: <[{begin}]> {_literal(name)} <[{arguments}]> arguments_{index}")
        rules.append(f"arguments_{index}: {_json(schema)}")
    return _HEAD + "\n".join(rules) + "\n"


def either(one: str, other: str) -> str:
    """What one of two grammars of this module takes."""
    parts = [f"%lark {{\n{text.removeprefix(_HEAD)}}}" for text in (one, other)]
    return f"{_HEAD}start: one | other\none: {parts[0]}\nother: {parts[1]}\n"


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {_dumps({**schema, 'x-guidance': SPACING})}"


def _literal(text: str) -> str:
    """A Lark string: JSON's, but for one character that has to be escaped."""
    return _dumps(text).replace("\x7f", "\\u007f")


def _dumps(value: object) -> str:
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

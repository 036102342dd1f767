"""Builds grammars that allow only tool calls, in each format in which bases write calls
(`server.text.tool_formats`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from server.grammar.text import HEAD, dumps, json_rule, literal
from server.text.tool_formats import MISTRAL, ToolFormat
from server.text.tool_syntax import ARGS, TOOL_CALLS

ToolSchemas: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Maps each tool's name to the JSON schema of its arguments. A `$ref` points into the schema of its own
tool.
"""


def tool_calls(form: ToolFormat, tools: ToolSchemas, ids: Mapping[str, int], *, parallel: bool = True) -> str:
    """Return a grammar that allows only calls of `tools`, written in the format `form`.

    `ids` maps the format's control tokens to their token ids. Mistral's format needs the id of
    `[TOOL_CALLS]`; with the id of `[ARGS]`, calls are written as `name[ARGS]{…}`. Without `parallel`, only
    one call is allowed. Raises `ValueError` if there are no tools.
    """
    if not tools:
        raise ValueError("tools is empty, but a grammar of tool calls needs at least one tool")
    if form is not MISTRAL:
        rules = _written(form, tools, ids, parallel)
    elif ARGS in ids:
        rules = _named(tools, ids[TOOL_CALLS], ids[ARGS], parallel)
    else:
        rules = _array(tools, ids[TOOL_CALLS], parallel)
    rules.append(f"call: {' | '.join(f'call_{index}' for index in range(len(tools)))}")
    rules += [f"arguments_{index}: {json_rule(schema)}" for index, schema in enumerate(tools.values())]
    return HEAD + "\n".join(rules) + "\n"


def _array(tools: ToolSchemas, begin: int, parallel: bool) -> list[str]:
    more = " (/, ?/ call)*" if parallel else ""  # the space as `_spelled` has it
    return [f'start: <[{begin}]> " "? "[" call{more} "]"', *_objects(MISTRAL, tools, {})]


def _named(tools: ToolSchemas, begin: int, arguments: int, parallel: bool) -> list[str]:
    return [f"start: call{'+' if parallel else ''}"] + [
        f"call_{index}: <[{begin}]> {literal(name)} <[{arguments}]> arguments_{index}"
        for index, name in enumerate(tools)
    ]


def _written(form: ToolFormat, tools: ToolSchemas, ids: Mapping[str, int], parallel: bool) -> list[str]:
    more = f" ({_spelled(form.between, form, ids)} call)*" if parallel else ""
    start = f"start: {_spelled(form.begin, form, ids)} call{more} {_spelled(form.end, form, ids)}"
    return [start, *_objects(form, tools, ids)]


def _objects(form: ToolFormat, tools: ToolSchemas, ids: Mapping[str, int]) -> list[str]:
    before, after = _spelled(form.before, form, ids), _spelled(form.after, form, ids)
    rules: list[str] = []
    for index, name in enumerate(tools):
        opening = f'{{"name": {dumps(name)}, {dumps(form.arguments_key)}: '
        rules.append(f'call_{index}: {before} {literal(opening)} arguments_{index} "}}" {after}')
    return rules


def _spelled(text: str, form: ToolFormat, ids: Mapping[str, int]) -> str:
    """Return `text` as an expression of the Lark grammar, in which the control tokens in `ids` are single
    tokens.

    Tokenizers like SentencePiece's may put a space after a control token, so the expression allows one.
    """
    parts = re.split(f"({'|'.join(map(re.escape, form.control))})", text) if form.control else [text]
    spelled = (f"<[{ids[part]}]>" if part in ids else literal(part) for part in parts if part)
    tokens = (part in form.control for part in parts if part)
    return " ".join(f'{part} " "?' if token else part for part, token in zip(spelled, tokens, strict=True))

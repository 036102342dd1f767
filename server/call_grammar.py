"""The grammar of an answer that must call tools, in llguidance's Lark syntax.

Calls are spaced as the models were trained to write them, as Python's `json.dumps` does. Each tool's schema
is a root of its own, so that its `$ref`s hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_AS_TRAINED = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def calls_grammar(
    tools: Mapping[str, Mapping[str, Any]], begin: int, arguments: int | None, *, several: bool
) -> str:
    """One call of one of `tools` (name → JSON schema of its arguments), or one and more with `several`.

    `begin` and `arguments` are the ids of `[TOOL_CALLS]` and `[ARGS]`; without the latter the calls are an
    array of objects. Names must not need quoting in JSON.
    """
    choice = "call: " + " | ".join(f"call_{index}" for index in range(len(tools)))
    schemas = [json.dumps({**schema, "x-guidance": _AS_TRAINED}) for schema in tools.values()]
    named = list(enumerate(zip(tools, schemas, strict=True)))
    if arguments is None:
        more = '(", " call)*' if several else ""
        start = f'start: <[{begin}]> " "? "[" call {more} "]"'
        rules = [
            f'call_{index}: "{{\\"name\\": \\"{name}\\", \\"arguments\\": " %json {schema} "}}"'
            for index, (name, schema) in named
        ]
    else:
        start = "start: call" + ("+" if several else "")
        rules = [
            f'call_{index}: <[{begin}]> "{name}" <[{arguments}]> %json {schema}'
            for index, (name, schema) in named
        ]
    return "\n".join([start, choice, *rules, ""])

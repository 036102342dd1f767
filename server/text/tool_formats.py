"""How bases write calls of tools: the formats that are read, and which one a chat template uses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.text.tool_syntax import ARGS, CALL_CLOSE, CALL_ID, CALL_OPEN, PYTHON_TAG, TOOL_CALLS


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """One way to write calls: `begin`, calls with `between` between them, `end`.

    A call is `before`, a JSON object of a name and of arguments, `after`. Names are those of vLLM's parsers.
    """

    name: str
    begin: str = ""
    before: str = ""
    after: str = ""
    between: str = ", "
    end: str = ""
    arguments_key: str = "arguments"
    control: tuple[str, ...] = ()
    """Tokens that the format's text may come as."""

    def write(self, calls: Sequence[Mapping[str, Any]]) -> str:
        """`calls`, in the shape of Hugging Face's templates (`{"function": {"name", "arguments"}}`)."""
        objects = [
            {"name": call["function"]["name"], self.arguments_key: call["function"]["arguments"]}
            for call in calls
        ]
        written = (f"{self.before}{json.dumps(item, ensure_ascii=False)}{self.after}" for item in objects)
        return f"{self.begin}{self.between.join(written)}{self.end}"


MISTRAL = ToolFormat(name="mistral", begin=TOOL_CALLS + "[", end="]", control=(TOOL_CALLS, ARGS, CALL_ID))
"""`[TOOL_CALLS][{"name": …, "arguments": …}]`, or `[TOOL_CALLS]name[ARGS]{…}` with the token `[ARGS]`."""
HERMES = ToolFormat(
    name="hermes",
    before=CALL_OPEN + "\n",
    after="\n" + CALL_CLOSE,
    between="\n",
    control=(CALL_OPEN, CALL_CLOSE),
)
"""`<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen 2.5 and 3."""
LLAMA3 = ToolFormat(name="llama3_json", between="; ", arguments_key="parameters", control=(PYTHON_TAG,))
"""`{"name": …, "parameters": …}`, also after `<|python_tag|>`: Llama 3.1 and later."""
JSON = ToolFormat(name="json", begin="[", end="]")
"""An answer that is an array of calls as a whole: for bases with no format of their own."""

FORMATS: Mapping[str, ToolFormat] = {item.name: item for item in (MISTRAL, HERMES, LLAMA3, JSON)}

PROBE_NAME = "4f1d"
"""The tool that a template is shown a call of."""
_LLAMA3_CALL = re.compile(rf'\{{[^{{}}]*"name": *"{PROBE_NAME}"[^{{}}]*"parameters": *\{{')
_HERMES_CALL = re.compile(r"<tool_call>\s*\{")
_OTHER = ("<function=", "<arg_key>", "<invoke")
"""Marks of formats in XML, which also write `<tool_call>`."""


def find_format(source: str, called: str | None) -> ToolFormat | None:
    """The format of a chat template: by the text of a conversation with a call, else by its source.

    `called` is None if the template refuses such a conversation.
    """
    if called is not None:
        if TOOL_CALLS in called:
            return MISTRAL
        if _HERMES_CALL.search(called):
            return HERMES
        if _LLAMA3_CALL.search(called):
            return LLAMA3
    if TOOL_CALLS in source:
        return MISTRAL
    if CALL_OPEN in source and not any(mark in source for mark in _OTHER):
        return HERMES
    return LLAMA3 if PYTHON_TAG in source else None

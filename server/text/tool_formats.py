"""The formats in which bases write tool calls, and detection of the format that a chat template uses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.text.tool_syntax import ARGS, CALL_CLOSE, CALL_ID, CALL_OPEN, PYTHON_TAG, TOOL_CALLS


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """A format in which a base writes tool calls: `begin`, the calls separated by `between`, then `end`.

    Each call is `before`, a JSON object with a name and arguments, then `after`. `name` is the format's name
    in vLLM's option `--tool-call-parser`.
    """

    name: str
    begin: str = ""
    before: str = ""
    after: str = ""
    between: str = ", "
    end: str = ""
    arguments_key: str = "arguments"
    control: tuple[str, ...] = ()
    """Strings of the format that are single control tokens in the vocabularies of some bases."""

    def write(self, calls: Sequence[Mapping[str, Any]]) -> str:
        """Write tool calls as text in this format. Each of `calls` is `{"function": {"name",
        "arguments"}}`.
        """
        objects = [
            {"name": call["function"]["name"], self.arguments_key: call["function"]["arguments"]}
            for call in calls
        ]
        written = (f"{self.before}{json.dumps(item, ensure_ascii=False)}{self.after}" for item in objects)
        return f"{self.begin}{self.between.join(written)}{self.end}"


MISTRAL = ToolFormat(name="mistral", begin=TOOL_CALLS + "[", end="]", control=(TOOL_CALLS, ARGS, CALL_ID))
"""Mistral's format of tool calls: `[TOOL_CALLS][{"name": …, "arguments": …}]` or, if the vocabulary has
`[ARGS]`, `[TOOL_CALLS]name[ARGS]{…}`.
"""
HERMES = ToolFormat(
    name="hermes",
    before=CALL_OPEN + "\n",
    after="\n" + CALL_CLOSE,
    between="\n",
    control=(CALL_OPEN, CALL_CLOSE),
)
"""Format of tool calls in Hermes, Qwen 2.5 and Qwen 3: `<tool_call>{"name": …, "arguments":
…}</tool_call>`.
"""
LLAMA3 = ToolFormat(name="llama3_json", between="; ", arguments_key="parameters", control=(PYTHON_TAG,))
"""Format of tool calls in Llama 3.1 and later: `{"name": …, "parameters": …}`, with or without
`<|python_tag|>` before it.
"""
JSON = ToolFormat(name="json", begin="[", end="]")
"""Format of tool calls for bases without a format of their own: the whole answer is a JSON array of calls."""

FORMATS: Mapping[str, ToolFormat] = {item.name: item for item in (MISTRAL, HERMES, LLAMA3, JSON)}

PROBE_NAME = "4f1d"
"""Name of the tool in the test conversation that shows how a chat template renders tool calls."""
_LLAMA3_CALL = re.compile(rf'\{{[^{{}}]*"name": *"{PROBE_NAME}"[^{{}}]*"parameters": *\{{')
_HERMES_CALL = re.compile(r"<tool_call>\s*\{")
_OTHER = ("<function=", "<arg_key>", "<invoke")
"""Strings that occur in XML-like formats of tool calls. These also use `<tool_call>`, but are not
supported.
"""


def find_format(source: str, called: str | None) -> ToolFormat | None:
    """Find the format in which a chat template writes tool calls; None if it is not supported.

    Looks at `called`, the rendered text of a conversation with a call, then at `source`, the text of the
    template. `called` is None if the template refuses such a conversation.
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

"""Renders tool calls in OpenAI's format, in whole and in streamed answers."""

from __future__ import annotations

from typing import Any

from server.api.parsing.tools import ToolUse
from server.request import Delta, FinishReason
from server.text.tool_parser import CallReader
from server.text.tool_syntax import ArgumentsDelta, CallEvent, CallStart, TextDelta, whole


def called_message(text: str, echo: str, tools: ToolUse) -> tuple[dict[str, Any], int]:
    """Return an answer's `content` and `tool_calls` as in OpenAI's messages, and the number of tool calls.

    `content` is null if the answer consists of tool calls only.
    """
    reader = _reader(tools)
    read = whole([*reader.push(text), *reader.finish()])
    content = echo + read.text
    if not read.calls:
        return {"content": content}, 0
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
        for call, arguments in read.calls
    ]
    return {"content": content or None, "tool_calls": calls}, len(calls)


def end_reason(reason: FinishReason | None, calls: int, tools: ToolUse) -> str | None:
    """Return a choice's finish reason: `tool_calls` if the choice has tool calls.

    As in OpenAI's API, the reason is `stop` if the request named the tool to call.
    """
    return "tool_calls" if reason == "stop" and calls and not tools.named else reason


class CallStreams:
    """Parses tool calls in the choices of one streamed answer."""

    def __init__(self, tools: ToolUse, choices: int) -> None:
        self._tools = tools
        self._readers = [_reader(tools) for _ in range(choices)]

    def deltas(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        """Convert a delta (piece) of a choice to the `delta` objects of OpenAI's chunks."""
        reader = self._readers[index]
        events = reader.push(delta.text)
        if delta.finish_reason is not None:
            events += reader.finish()
        return [_delta(event) for event in events]

    def end(self, index: int, reason: FinishReason) -> str | None:
        """Return the finish reason of a choice, which is `tool_calls` if the choice has tool calls."""
        return end_reason(reason, self._readers[index].calls, self._tools)


def _reader(tools: ToolUse) -> CallReader:
    names = [tool["function"]["name"] for tool in tools.tools]
    return CallReader(tools.format, names, parallel=tools.parallel)


def _delta(event: CallEvent) -> dict[str, Any]:
    match event:
        case TextDelta(text):
            return {"content": text}
        case CallStart(index, call_id, name):
            call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
            return {"tool_calls": [{"index": index, **call}]}
        case ArgumentsDelta(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}

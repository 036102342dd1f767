"""Calls of tools in OpenAI's answers, whole and streamed."""

from __future__ import annotations

from typing import Any

from server.api.parsing.tools import ToolUse
from server.request import Delta, FinishReason
from server.text.tool_parser import CallReader
from server.text.tool_syntax import ArgumentsDelta, CallEvent, CallStart, TextDelta, whole


def called_message(text: str, echo: str, tools: ToolUse) -> tuple[dict[str, Any], int]:
    """A message's `content`, null where there are calls alone, and `tool_calls`; and their number."""
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
    """Why a choice ended: `tool_calls`; as in OpenAI's answers `stop` where the request named the tool."""
    return "tool_calls" if reason == "stop" and calls and not tools.named else reason


class CallStreams:
    """The choices of one streamed answer."""

    def __init__(self, tools: ToolUse, choices: int) -> None:
        self._tools = tools
        self._readers = [_reader(tools) for _ in range(choices)]

    def deltas(self, index: int, delta: Delta) -> list[dict[str, Any]]:
        """What a choice grew by, as the `delta`s of OpenAI's chunks."""
        reader = self._readers[index]
        events = reader.push(delta.text)
        if delta.finish_reason is not None:
            events += reader.finish()
        return [_delta(event) for event in events]

    def end(self, index: int, reason: FinishReason) -> str | None:
        """Why a choice ended."""
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

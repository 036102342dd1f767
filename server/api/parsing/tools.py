"""OpenAI's `tools` and `tool_choice`: checked, and turned into what template, engine and answer need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from server.api.fields.generation import ChatFields, ChosenTool, TextFormat, ToolFields
from server.api.parsing.tool_messages import check_depth
from server.errors import ApiError, bad_field
from server.grammar.calls import tool_calls
from server.grammar.closing import close_objects
from server.grammar.schema import check_schema
from server.grammar.service import GrammarCheck
from server.grammar.text import GrammarRefusedError, bounded, either
from server.request import Sampling
from server.text.tokenizer import Tokenizer, Tool
from server.text.tool_formats import FORMATS, JSON, MISTRAL, ToolFormat
from server.text.tool_syntax import MARKS

MAX_SCHEMA = 64 * 1024
"""Bytes of a tool's parameters as JSON."""

_NONE: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """How a request uses tools."""

    tools: tuple[Tool, ...]
    """What the chat template shows to the model."""
    format: ToolFormat
    """How the answer writes calls."""
    marks: Mapping[int, str]
    """See `Sampling.marks`."""
    calls: str
    """The grammar of calls, where the answer is held to one at all."""
    forced: bool
    """Whether the answer must call."""
    parallel: bool
    """Whether an answer may hold several calls."""
    named: bool
    """Whether the request chose the tool; OpenAI's answers then end with `stop`."""


def read_tools(body: ChatFields, tokenizer: Tokenizer) -> ToolUse | None:
    """How `body` uses tools; None where it does not. Raises `ApiError` with the path of what is wrong."""
    choice = body.tool_choice or "auto"
    held = choice != "auto" or not isinstance(body.response_format, TextFormat | None)
    schemas: dict[str, dict[str, Any]] = {}
    for index, tool in enumerate(body.tools):
        path, function = f"tools[{index}].function", tool.function
        if function.name in schemas:
            raise _wrong(f"{path}.name", f"another tool is named {function.name!r} too")
        schemas[function.name] = _schema(function.parameters, f"{path}.parameters", held)
    _check_choice(choice, schemas)
    if choice == "none" or not body.tools:
        return None
    _check_alone(body)
    form = _format(tokenizer, choice)
    ids = tokenizer.tool_tokens(form)
    named = isinstance(choice, ChosenTool)
    shown = body.tools
    if named:
        schemas = {choice.function.name: schemas[choice.function.name]}
        if not tokenizer.takes_tools:  # each takes tokens of the prompt, and only one can be called
            shown = [tool for tool in shown if tool.function.name in schemas]
    parallel = body.parallel_tool_calls and not named
    return ToolUse(
        tools=tuple(_tool_for_template(tool) for tool in shown),
        marks={number: MARKS[token] for token, number in ids.items()},
        format=form,
        calls=_grammar(form, schemas, ids, parallel) if held else "",
        forced=choice != "auto",
        parallel=parallel,
        named=named,
    )


async def with_tools(tools: ToolUse, sampling: Sampling, check: GrammarCheck) -> Sampling:
    """`sampling` for an answer that may or must call.

    A form that the answer was to have is that of its text: the answer is such a text or calls, and where it
    must call, calls. Raises `ApiError` (400) for tools that no grammar can be made of, and `EngineBusyError`.
    """
    text = tools.calls
    if not tools.forced:
        text = either(sampling.grammar, tools.calls) if sampling.grammar else ""
    if text:
        try:
            await check(text)
        except GrammarRefusedError as error:
            raise _wrong("tools", f"their parameters cannot be served: {error}") from None
    return replace(sampling, marks=tools.marks, grammar=text)


def _grammar(
    form: ToolFormat, schemas: Mapping[str, dict[str, Any]], ids: Mapping[str, int], parallel: bool
) -> str:
    try:
        return bounded(tool_calls(form, schemas, ids, parallel=parallel))
    except GrammarRefusedError as error:
        raise _wrong("tools", f"their parameters cannot be served: {error}") from None


def _schema(parameters: dict[str, Any] | None, path: str, held: bool) -> dict[str, Any]:
    """A tool's parameters as the JSON schema of an object, and one for a grammar where answers are `held`."""
    if not parameters:
        return _NONE
    check_depth(parameters, path)
    if parameters.get("type", "object") != "object":
        raise _wrong(f"{path}.type", 'it must be "object"')
    if len(msgspec.json.encode(parameters)) > MAX_SCHEMA:
        raise _wrong(path, f"it has more than {MAX_SCHEMA} bytes as JSON")
    try:
        if held:
            check_schema(parameters)
            return close_objects({"type": "object", **parameters})
    except GrammarRefusedError as error:
        raise _wrong(path, str(error)) from None
    return parameters


def _check_alone(body: ChatFields) -> None:
    for name in ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"):
        if getattr(body, name) is not None:
            raise _wrong(name, "it and tools exclude each other; send one, or response_format")


def _check_choice(choice: str | ChosenTool, schemas: Mapping[str, object]) -> None:
    if choice in ("none", "auto"):
        return
    if not schemas:
        raise _wrong("tool_choice", "it needs tools to choose from")
    if isinstance(choice, ChosenTool) and choice.function.name not in schemas:
        raise _wrong("tool_choice.function.name", f"none of the tools is named {choice.function.name!r}")


def _format(tokenizer: Tokenizer, choice: str | ChosenTool) -> ToolFormat:
    """How the answer writes calls. A grammar can have any base write them, if it must."""
    form = tokenizer.tool_format
    if form is not None:
        return form
    if choice != "auto":
        return JSON
    knows = "shows them in no format that this server reads" if tokenizer.takes_tools else "knows no tools"
    parsers = ", ".join(name for name in FORMATS if name != MISTRAL.name)
    message = (
        f"tools: this base's chat template {knows}, so it cannot choose to call them; send tool_choice "
        f'"required", a named tool, or tool_choice "none". An operator can set tool_parser ({parsers}).'
    )
    raise bad_field("tools", message, code="unsupported_parameter")


def _tool_for_template(tool: ToolFields) -> Tool:
    function = {
        "name": tool.function.name,
        "description": tool.function.description or "",
        "parameters": tool.function.parameters or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def shown_tools(tools: Sequence[ToolFields]) -> tuple[Tool, ...]:
    """Tools as the chat template shows them, where nothing is generated. Raises as `read_tools` does."""
    for index, tool in enumerate(tools):
        _schema(tool.function.parameters, f"tools[{index}].function.parameters", held=False)
    return tuple(_tool_for_template(tool) for tool in tools)


def _wrong(path: str, reason: str) -> ApiError:
    return bad_field(path, f"{path}: {reason}.", code="invalid_value")

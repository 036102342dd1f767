"""OpenAI's `tools` and `tool_choice`: checked, and turned into what template, engine and answer need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from server.api.fields.generation import ChatFields, ChosenTool, TextFormat, ToolFields
from server.api.parsing.tool_messages import check_depth
from server.errors import ApiError, bad_field
from server.grammar.schema import check_schema
from server.grammar.service import GrammarCheck
from server.grammar.text import GrammarRefusedError, either, named_calls, tool_calls
from server.request import Sampling
from server.text.tokenizer import Tokenizer, Tool
from server.text.tool_syntax import ARGS, MARKS, TOOL_CALLS

MAX_SCHEMA = 64 * 1024
"""Bytes of a tool's parameters as JSON."""

_NONE: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """How a request uses tools."""

    tools: tuple[Tool, ...]
    """What the chat template shows to the model."""
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
    ids = _token_ids(tokenizer)
    named = isinstance(choice, ChosenTool)
    if named:
        schemas = {choice.function.name: schemas[choice.function.name]}
    parallel = body.parallel_tool_calls and not named
    return ToolUse(
        tools=tuple(_tool_for_template(tool) for tool in body.tools),
        marks={number: MARKS[token] for token, number in ids.items()},
        calls=_grammar(schemas, ids, parallel) if held else "",
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


def _grammar(schemas: Mapping[str, dict[str, Any]], ids: Mapping[str, int], parallel: bool) -> str:
    begin, arguments = ids[TOOL_CALLS], ids.get(ARGS)
    if arguments is None:
        return tool_calls(schemas, prefix=begin, parallel=parallel)
    return named_calls(schemas, begin=begin, arguments=arguments, parallel=parallel)


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
    except GrammarRefusedError as error:
        raise _wrong(path, str(error)) from None
    return {"type": "object", **parameters}


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


def _token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    ids = {token: tokenizer.added_id(token) for token in MARKS}
    known = {token: number for token, number in ids.items() if number is not None}
    if not tokenizer.takes_tools:
        lack = "its chat template has no use for them"
    elif TOOL_CALLS not in known:
        lack = f"its tokenizer has no {TOOL_CALLS}, with which calls begin"
    else:
        return known
    message = f'tools: this base cannot call them, because {lack}; leave them out or send tool_choice "none".'
    raise bad_field("tools", message, code="unsupported_parameter")


def _tool_for_template(tool: ToolFields) -> Tool:
    function: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description:
        function["description"] = tool.function.description
    function["parameters"] = tool.function.parameters or _NONE
    return {"type": "function", "function": function}


def shown_tools(tools: Sequence[ToolFields]) -> tuple[Tool, ...]:
    """Tools as the chat template shows them, where nothing is generated. Raises as `read_tools` does."""
    for index, tool in enumerate(tools):
        _schema(tool.function.parameters, f"tools[{index}].function.parameters", held=False)
    return tuple(_tool_for_template(tool) for tool in tools)


def _wrong(path: str, reason: str) -> ApiError:
    return bad_field(path, f"{path}: {reason}.", code="invalid_value")

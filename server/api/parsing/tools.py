"""Checks OpenAI's `tools` and `tool_choice`, and converts them for the chat template, the engine and the
answer.
"""

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
from server.grammar.validity import check_validity
from server.request import Sampling
from server.text.tokenizer import Tokenizer, Tool
from server.text.tool_formats import FORMATS, JSON, MISTRAL, ToolFormat
from server.text.tool_syntax import MARKS

MAX_SCHEMA = 64 * 1024
"""Maximum size in bytes of a tool's parameters as JSON."""

_NONE: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """The tools of a request, and which of them the model may or must call."""

    tools: tuple[Tool, ...]
    """Tools that the chat template shows to the model."""
    format: ToolFormat
    """Format in which the model writes tool calls."""
    marks: Mapping[int, str]
    """Maps token ids to the characters that represent these tokens in the text, as in `Sampling.marks`."""
    calls: str
    """Grammar of the tool calls; empty if no grammar constrains the answer."""
    forced: bool
    """True if the answer must call a tool."""
    parallel: bool
    """True if an answer may hold several tool calls."""
    named: bool
    """True if the request names the tool to call. The `finish_reason` is then `stop`, as in OpenAI's API."""


def read_tools(body: ChatFields, tokenizer: Tokenizer) -> ToolUse | None:
    """Return the tools of the request `body`; None if it has no tools or its `tool_choice` is "none". Raises
    `ApiError` with the path of an invalid value.
    """
    choice = body.tool_choice or "auto"
    held = choice != "auto" or not isinstance(body.response_format, TextFormat | None)
    schemas: dict[str, dict[str, Any]] = {}
    for index, tool in enumerate(body.tools):
        path, function = f"tools[{index}].function", tool.function
        if function.name in schemas:
            raise _wrong(
                f"{path}.name", f"two tools have the same name {function.name!r}; rename one of them"
            )
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
    """Return `sampling` with the grammar for an answer that may or must call tools.

    If the request also asks for structured output, the answer is either such a text or tool calls; if calls
    are required, only tool calls. Raises `ApiError` (400) for tools that cannot be converted to a grammar,
    and `EngineBusyError`.
    """
    text = tools.calls
    if not tools.forced:
        text = either(sampling.grammar, tools.calls) if sampling.grammar else ""
    if text:
        try:
            await check(text)
        except GrammarRefusedError as error:
            text = f"a tool's parameters cannot be converted to a grammar: {error.reason}"
            raise _wrong("tools", text) from None
    return replace(sampling, marks=tools.marks, grammar=text)


def _grammar(
    form: ToolFormat, schemas: Mapping[str, dict[str, Any]], ids: Mapping[str, int], parallel: bool
) -> str:
    try:
        return bounded(tool_calls(form, schemas, ids, parallel=parallel))
    except GrammarRefusedError as error:
        raise _wrong("tools", f"a tool's parameters cannot be converted to a grammar: {error}") from None


def _schema(parameters: dict[str, Any] | None, path: str, held: bool) -> dict[str, Any]:
    """Check a tool's parameters, and return them as the JSON schema of an object. If `held` is true, a
    grammar must be able to enforce the schema. Raises `ApiError` with the `path` of an invalid value.
    """
    if not parameters:
        return _NONE
    check_depth(parameters, path)
    if parameters.get("type", "object") != "object":
        raise _wrong(f"{path}.type", 'the parameters of a tool must have the type "object"')
    if len(msgspec.json.encode(parameters)) > MAX_SCHEMA:
        raise _wrong(path, f"the JSON of the parameters is larger than {MAX_SCHEMA} bytes; shorten it")
    try:
        check_validity(parameters)
        if held:
            check_schema(parameters)
            return close_objects({"type": "object", **parameters})
    except GrammarRefusedError as error:
        raise _wrong(f"{path}.{error.place}" if error.place else path, str(error)) from None
    return parameters


def _check_alone(body: ChatFields) -> None:
    for name in ("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"):
        if getattr(body, name) is not None:
            raise _wrong(
                name,
                "this field cannot be combined with tools; use response_format instead, or remove the tools",
            )


def _check_choice(choice: str | ChosenTool, schemas: Mapping[str, object]) -> None:
    if choice in ("none", "auto"):
        return
    if not schemas:
        raise _wrong("tool_choice", "the request has a tool_choice but no tools; send tools as well")
    if isinstance(choice, ChosenTool) and choice.function.name not in schemas:
        raise _wrong(
            "tool_choice.function.name",
            f"the request has no tool named {choice.function.name!r}; send the name of one of its tools",
        )


def _format(tokenizer: Tokenizer, choice: str | ChosenTool) -> ToolFormat:
    """Return the format in which the model writes tool calls. If the base has no known format and `choice`
    requires a tool call, a grammar makes the model write JSON. If `choice` is "auto", raises `ApiError`.
    """
    form = tokenizer.tool_format
    if form is not None:
        return form
    if choice != "auto":
        return JSON
    knows = (
        "writes tool calls in a format that this server cannot parse"
        if tokenizer.takes_tools
        else "does not support tools"
    )
    parsers = ", ".join(name for name in FORMATS if name != MISTRAL.name)
    raise bad_field(
        "tools",
        f'tools: the chat template of this base {knows}, so tool_choice "auto" is not available; send '
        f'"required", a named tool or "none". The operator of the server can set tool_parser ({parsers}).',
        code="unsupported_parameter",
    )


def _tool_for_template(tool: ToolFields) -> Tool:
    function = {
        "name": tool.function.name,
        "description": tool.function.description or "",
        "parameters": tool.function.parameters or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def shown_tools(tools: Sequence[ToolFields]) -> tuple[Tool, ...]:
    """Return the tools for the chat template of a request that only tokenizes. Raises `ApiError` as
    `read_tools` does.
    """
    for index, tool in enumerate(tools):
        _schema(tool.function.parameters, f"tools[{index}].function.parameters", held=False)
    return tuple(_tool_for_template(tool) for tool in tools)


def _wrong(path: str, reason: str) -> ApiError:
    return bad_field(path, f"{path}: {reason}.", code="invalid_value")

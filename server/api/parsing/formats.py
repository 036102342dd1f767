"""What form an answer must have: OpenAI's `response_format`, vLLM's `structured_outputs` and `guided_*`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import msgspec

from server.api.fields.bounds import GRAMMAR
from server.api.fields.generation import ChatFields, GenerationFields, JsonObjectFormat, JsonSchemaFormat
from server.api.fields.responses import ResponseFields, ResponseSchemaFormat
from server.errors import bad_field
from server.grammar import text as grammar
from server.grammar.closing import close_objects
from server.grammar.schema import check_schema
from server.grammar.service import GrammarCheck
from server.grammar.text import GrammarRefusedError, bounded
from server.request import Sampling
from server.serving.one_thread import Aside

_GUIDED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
_STRUCTURED = ("json", "regex", "choice", "grammar", "json_object")


def asks_form(body: ChatFields) -> bool:
    """Whether tools or a form are asked for, or asked not to be."""
    wishes = (*_GUIDED, "structured_outputs", "response_format", "tool_choice")
    return bool(body.tools) or any(getattr(body, name) is not None for name in wishes)


async def guided(body: GenerationFields, sampling: Sampling, check: GrammarCheck, aside: Aside) -> Sampling:
    """`sampling` with the grammar that the request asks for, written `aside` and tried.

    Raises `ApiError` (400) naming the field that cannot be served, and `EngineBusyError`.
    """
    wishes = dict(_wishes(body))
    if len(wishes) > 1:
        names = " and ".join(wishes)
        raise bad_field(next(iter(wishes)), f"{names} exclude each other; send one.", code="invalid_value")
    return await _kept(wishes, sampling, check, aside)


async def guided_text(
    body: ResponseFields, sampling: Sampling, check: GrammarCheck, aside: Aside
) -> Sampling:
    """The same for the `text.format` of a response."""
    match body.text and body.text.format:
        case JsonObjectFormat():
            wishes: dict[str, tuple[str, Any]] = {"text.format": ("json_object", True)}
        case ResponseSchemaFormat(schema=schema):
            wishes = {"text.format.schema": ("json", schema)}
        case _:
            return sampling
    return await _kept(wishes, sampling, check, aside)


async def _kept(
    wishes: Mapping[str, tuple[str, Any]], sampling: Sampling, check: GrammarCheck, aside: Aside
) -> Sampling:
    for name, (kind, wish) in wishes.items():
        try:
            text = await aside(partial(_grammar, kind, wish))
            await check(text)
        except GrammarRefusedError as error:
            raise bad_field(name, f"{name} cannot be served: {error}.", code="invalid_value") from None
        return replace(sampling, grammar=text)
    return sampling


def _wishes(body: GenerationFields) -> list[tuple[str, tuple[str, Any]]]:
    """The path of each form that is asked for, with its kind and what it says."""
    wishes: list[tuple[str, tuple[str, Any]]] = []
    match body.response_format:
        case JsonObjectFormat():
            wishes.append(("response_format", ("json_object", True)))
        case JsonSchemaFormat(json_schema=named):
            wishes.append(("response_format.json_schema.schema", ("json", named.schema)))
        case _:
            pass
    options = body.structured_outputs
    if options is not None:
        chosen = [(name, getattr(options, name)) for name in _STRUCTURED]
        chosen = [(name, value) for name, value in chosen if value is not None and value is not False]
        if not chosen:
            message = f"structured_outputs needs one of {', '.join(_STRUCTURED)}."
            raise bad_field("structured_outputs", message, code="invalid_value")
        wishes += [(f"structured_outputs.{name}", (name, value)) for name, value in chosen]
    for name in _GUIDED:
        value = getattr(body, name)
        if value is not None:
            wishes.append((name, (name.removeprefix("guided_"), value)))
    return wishes


def _grammar(kind: str, wish: Any) -> str:
    match kind:
        case "json_object":
            return grammar.json_object()
        case "json":
            schema = _schema(wish)
            try:
                bounded(grammar.json_schema(schema))
            except RecursionError:
                raise GrammarRefusedError("it is nested too deeply") from None
            check_schema(schema)
            return bounded(grammar.json_schema(close_objects(schema)))
        case "regex":
            return grammar.regex(bounded(wish))
        case "choice":
            return bounded(grammar.choice(wish))
        case _:
            return grammar.lark(bounded(wish))


def _schema(wish: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """A schema as an object, or as the JSON of one."""
    if not isinstance(wish, str):
        return wish
    text = bounded(wish).encode("utf-8", "replace")
    if GRAMMAR.excess(text):
        raise GrammarRefusedError("it holds too many values")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise GrammarRefusedError(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise GrammarRefusedError("it must be a JSON object")
    return cast("dict[str, Any]", value)

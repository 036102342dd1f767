"""Parses the fields for structured output: OpenAI's `response_format`, vLLM's `structured_outputs` and
`guided_*`.
"""

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
from server.grammar.validity import check_validity
from server.request import Sampling
from server.serving.one_thread import Aside

_GUIDED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
_STRUCTURED = ("json", "regex", "choice", "grammar", "json_object")


def asks_form(body: ChatFields) -> bool:
    """Return True if the request has a field about tools or structured output."""
    wishes = (*_GUIDED, "structured_outputs", "response_format", "tool_choice")
    return bool(body.tools) or any(getattr(body, name) is not None for name in wishes)


async def guided(body: GenerationFields, sampling: Sampling, check: GrammarCheck, aside: Aside) -> Sampling:
    """Return `sampling` with the grammar that the request's structured output needs. The grammar is built in
    the worker thread `aside` and checked.

    Raises `ApiError` (400) with the name of an unsupported field, and `EngineBusyError` if too many grammars
    are waiting to be checked.
    """
    wishes = dict(_wishes(body))
    if len(wishes) > 1:
        names = " and ".join(wishes)
        raise bad_field(
            next(iter(wishes)),
            f"{names} cannot be combined; send only one of these fields.",
            code="invalid_value",
        )
    return await _kept(wishes, sampling, check, aside)


async def guided_text(
    body: ResponseFields, sampling: Sampling, check: GrammarCheck, aside: Aside
) -> Sampling:
    """Return `sampling` with the grammar that `text.format` of a /v1/responses request needs."""
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
            path = f"{name}.{error.place}" if error.place else name
            reason = str(error) if kind == "grammar" else error.reason
            raise bad_field(path, f"{name} is invalid: {reason}.", code="invalid_value") from None
        return replace(sampling, grammar=text)
    return sampling


def _wishes(body: GenerationFields) -> list[tuple[str, tuple[str, Any]]]:
    """Return the path, kind and value of each structured-output field in the request."""
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
            raise bad_field(
                "structured_outputs",
                f"structured_outputs is empty; set one of its fields: {', '.join(_STRUCTURED)}.",
                code="invalid_value",
            )
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
                raise GrammarRefusedError(
                    "the JSON schema is nested too deeply; simplify the schema"
                ) from None
            check_schema(schema)
            check_validity(schema)
            return bounded(grammar.json_schema(close_objects(schema)))
        case "regex":
            return grammar.regex(bounded(wish))
        case "choice":
            return bounded(grammar.choice(wish))
        case _:
            return grammar.lark(bounded(wish))


def _schema(wish: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Return a JSON schema that the client sent as an object or as JSON text. Raises
    `GrammarRefusedError`.
    """
    if not isinstance(wish, str):
        return wish
    text = bounded(wish).encode("utf-8", "replace")
    if GRAMMAR.excess(text):
        raise GrammarRefusedError("the JSON schema holds too many values; simplify the schema")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise GrammarRefusedError(
            f"the text of the JSON schema is not valid JSON, so correct it: {error}"
        ) from None
    if not isinstance(value, dict):
        raise GrammarRefusedError("the JSON schema is not a JSON object; send an object")
    return cast("dict[str, Any]", value)

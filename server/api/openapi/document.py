"""Makes the OpenAPI 3.1 document from the structs of the fields and the tables of answers and errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from server.api.fields.tables import TABLES, FieldTable
from server.api.openapi.answers import ERRORS, OF_BODIES, OF_CHANGES, SCHEMAS
from server.api.openapi.operations import ADMIN_OPERATIONS, OPERATIONS, Operation

API_VERSION = "1"
"""Version of the HTTP API, as in the path `/v1`. The server's release is at `/version`."""
_REF = "#/components/schemas/{name}"
_PATH_FIELD = re.compile(r"\{(\w+)\}")
_DESCRIPTION = (
    "An OpenAI-compatible server of one base model and many LoRA adapters. docs/api.md explains every field, "
    "how an adapter is chosen, and every error."
)
_ADAPTER = {
    "name": "X-OneSeek-Adapter",
    "in": "header",
    "description": "The adapter that should answer: an alias, alias@version, base or auto.",
    "schema": {"type": "string"},
}
_SUCCESS = {
    200: "Success",
    202: "The change is recorded, but this server has not applied it yet",
    304: "Not modified",
}
_SECURITY: Mapping[str, list[dict[str, list[str]]]] = {
    "open": [{}],
    "key": [{}, {"key": []}],
    "metrics": [{}, {"key": []}],
    "admin": [{"key": []}],
}


def make_document(*, changeable: bool) -> bytes:
    """Return the OpenAPI document as JSON, always the same bytes. With `changeable`, it includes the
    endpoints that change adapters.
    """
    operations = (*OPERATIONS, *(ADMIN_OPERATIONS if changeable else ()))
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "OneSeek", "version": API_VERSION, "description": _DESCRIPTION},
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": _paths(operations),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(operations),
            "responses": {str(status): _error(status) for status in ERRORS},
        },
    }
    return msgspec.json.encode(document)


def _paths(operations: Iterable[Operation]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation)
    return paths


def _describe(operation: Operation) -> dict[str, Any]:
    named = re.sub(r"\W+", "_", operation.path.removeprefix("/")).strip("_") or "page"
    described: dict[str, Any] = {
        "operationId": f"{operation.method}_{named}",
        "summary": operation.summary,
        "tags": [operation.tag],
        "security": _SECURITY[operation.access],
        "responses": _responses(operation),
    }
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PATH_FIELD.findall(operation.path)
    ]
    if operation.tag in ("generation", "existing backends") and operation.body:
        parameters.append(_ADAPTER)
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": {"application/json": {"schema": _body(operation.body)}},
        }
    if operation.deprecated:
        described["deprecated"] = True
    return described


def _body(kinds: tuple[type[msgspec.Struct], ...]) -> dict[str, Any]:
    refs = [{"$ref": _REF.format(name=kind.__name__)} for kind in kinds]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status in operation.statuses:
        content = {} if status == 304 else {"content": _content(operation)}
        responses[str(status)] = {"description": _SUCCESS[status]} | content
    for status in ERRORS:
        if status in OF_CHANGES and operation.access != "admin":
            continue
        if status in OF_BODIES - {400} and not operation.body:
            continue
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    if operation.verdict:
        schema = {"anyOf": [{"$ref": _REF.format(name=name)} for name in (operation.answer, "Error")]}
        responses["503"] = {"description": ERRORS[503], "content": {"application/json": {"schema": schema}}}
    return responses


def _content(operation: Operation) -> dict[str, Any]:
    if operation.media_type != "application/json":
        return {operation.media_type: {"schema": {"type": "string"}}}
    schema = {"$ref": _REF.format(name=operation.answer)} if operation.answer else {"type": "object"}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if operation.streams:
        content["text/event-stream"] = {
            "schema": {"description": "Server-sent events, whose `data` is JSON."}
        }
    return content


def _error(status: int) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="Error")}
    return {"description": ERRORS[status], "content": {"application/json": {"schema": schema}}}


def _schemas(operations: Iterable[Operation]) -> dict[str, Any]:
    bodies = list(dict.fromkeys(kind for operation in operations for kind in operation.body))
    _, schemas = msgspec.json.schema_components(bodies, ref_template=_REF)
    found = cast("dict[str, Any]", _as_ecma(schemas))
    for table in TABLES:
        _describe_fields(found[table.body.__name__], table)
    return {**found, **SCHEMAS}


def _describe_fields(schema: dict[str, Any], table: FieldTable) -> None:
    """Add the notes of docs/api.md to the schema as descriptions, and add the fields that are accepted and
    ignored.
    """
    for name, field in table.describe().items():
        if field.kind == "ignored" and name not in schema["properties"]:
            schema["properties"][name] = {
                "description": "This field is accepted, but has no effect on the answer."
            }
        elif field.kind == "honoured" and field.note and name in schema["properties"]:
            schema["properties"][name].setdefault("description", field.note)


def _as_ecma(value: object) -> object:
    r"""Return `value` with its patterns in JSON Schema's syntax, which has `$` for Python's `\Z`."""
    match value:
        case dict():
            items = cast("dict[str, object]", value).items()
            return {
                key: item.replace(r"\Z", "$") if key == "pattern" and type(item) is str else _as_ecma(item)
                for key, item in items
            }
        case list():
            return [_as_ecma(item) for item in cast("list[object]", value)]
        case _:
            return value

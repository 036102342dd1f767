"""Defines JSON schemas of answers: the fields that a client can rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JsonSchema = dict[str, Any]

_TEXT: JsonSchema = {"type": "string"}
_COUNT: JsonSchema = {"type": "integer", "minimum": 0}
_ANY: JsonSchema = {"type": "object"}
_CODE: JsonSchema = {"type": ["string", "integer", "null"]}
_OPTIONAL: JsonSchema = {"type": ["string", "null"]}


def _object(*optional: str, **required: JsonSchema) -> JsonSchema:
    """Return the JSON schema of an object with these fields. Fields named in `optional` may be missing, and
    an object may have other fields too.
    """
    names = [name for name in required if name not in optional]
    return {"type": "object", "properties": required, "required": names}


def _list(item: JsonSchema) -> JsonSchema:
    return {"type": "array", "items": item}


def _ref(name: str) -> JsonSchema:
    return {"$ref": f"#/components/schemas/{name}"}


_HEAD: dict[str, JsonSchema] = {"id": _TEXT, "object": _TEXT, "created": _COUNT, "model": _TEXT}
_END: JsonSchema = {"enum": ["stop", "length", "tool_calls", None]}

SCHEMAS: Mapping[str, JsonSchema] = {
    "Error": _object(error=_object(message=_TEXT, type=_TEXT, param=_OPTIONAL, code=_CODE)),
    "Usage": _object(
        "prompt_tokens_details",
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
        prompt_tokens_details=_object(cached_tokens=_COUNT),
    ),
    "ChatCompletion": _object(
        **_HEAD,
        choices=_list(
            _object(
                index=_COUNT,
                message=_object("tool_calls", role=_TEXT, content=_OPTIONAL, tool_calls=_list(_ANY)),
                finish_reason=_END,
            )
        ),
        usage=_ref("Usage"),
    ),
    "Completion": _object(
        **_HEAD, choices=_list(_object(index=_COUNT, text=_TEXT, finish_reason=_END)), usage=_ref("Usage")
    ),
    "Response": _object(
        id=_TEXT, object=_TEXT, status=_TEXT, model=_TEXT, output=_list({"type": "object"}), usage={}
    ),
    "Embeddings": _object(
        object=_TEXT,
        model=_TEXT,
        data=_list(_object(index=_COUNT, embedding={"type": ["array", "string"]})),
        usage=_object(prompt_tokens=_COUNT, total_tokens=_COUNT),
    ),
    "Model": _object(
        "problem",
        id=_TEXT,
        object=_TEXT,
        created=_COUNT,
        owned_by=_TEXT,
        root=_TEXT,
        parent=_OPTIONAL,
        max_model_len=_COUNT,
        problem=_TEXT,
    ),
    "Models": _object(object=_TEXT, data=_list(_ref("Model"))),
    "Adapters": _object(object=_TEXT, bases=_list(_ANY), data=_list(_ANY), changeable={"type": "boolean"}),
    "AdapterVersion": _object(
        name=_TEXT,
        alias=_TEXT,
        version=_TEXT,
        digest=_OPTIONAL,
        active={"type": "boolean"},
        card=_ANY,
        lineage={"type": ["object", "null"]},
    ),
    "Samples": _object(object=_TEXT, seconds={"type": "number"}, kept=_COUNT, data=_list(_ANY)),
    "Tokens": _object(
        count=_COUNT, max_model_len=_COUNT, tokens=_list(_COUNT), token_strs={"type": ["array", "null"]}
    ),
    "Prompt": _object(prompt=_TEXT),
    "Inference": _object(
        response=_TEXT,
        model=_TEXT,
        adapter=_TEXT,
        digest=_OPTIONAL,
        language=_OPTIONAL,
        route=_TEXT,
        tokens=_COUNT,
        latency_ms={"type": "number"},
    ),
    "Status": _object(status=_TEXT),
    "Version": _object(version=_TEXT, engine=_TEXT, base_digest=_TEXT),
}
"""Maps names to JSON schemas of answers. An answer may have more fields than its schema lists."""

ERRORS: Mapping[int, str] = {
    400: "The request or one of its fields is invalid or not supported; `param` names the field.",
    401: "The API key is missing or invalid.",
    403: "The key does not have access, or the request comes from another site's web page.",
    404: "The path, model or adapter does not exist.",
    405: "The endpoint does not support this method.",
    408: "The body, or reading the answer, took too long.",
    409: "The change conflicts with the current state.",
    413: "The body is too large.",
    414: "The URL is too long.",
    415: "Content-Type or Content-Encoding is not supported; send plain JSON.",
    421: "The Host header is not one of the server's allowed hosts.",
    429: "The queue is full, or too many wrong keys; retry after `Retry-After` seconds.",
    431: "The headers are too large.",
    500: "The server or its engine failed at this request.",
    503: "The engine, an adapter or a connection is not available; retry after `Retry-After` seconds.",
    504: "The request took longer than the server's `request_timeout`.",
    507: "The disk of the server's home is full.",
}
OF_BODIES = frozenset({400, 408, 413, 415, 504})
"""Error statuses of operations with a JSON body. Of these, an operation without a body can only have 400."""
OF_CHANGES = frozenset({409, 507})
"""Error statuses of operations that change adapters; no other operation has them."""

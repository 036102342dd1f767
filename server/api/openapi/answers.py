"""The shapes of answers, as JSON Schema: the fields that a client can count on."""

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
    """An object with these fields, all there but those that `optional` names, and others."""
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
"""By name; other fields may come beside those that are listed."""

ERRORS: Mapping[int, str] = {
    400: "A field, or the request as a whole, cannot be served; `param` names the field.",
    401: "A key is needed.",
    403: "The key does not open this, or a page of another site asks.",
    404: "No such path, model or adapter.",
    405: "The path does not take this method.",
    408: "The body did not arrive in time.",
    409: "The change contradicts what is there.",
    413: "The body is too large.",
    414: "The URL is too long.",
    415: "The body is not plain JSON by its headers.",
    421: "The server does not go by this host.",
    429: "No place in the queue: retry after `Retry-After` seconds.",
    431: "The headers are too large.",
    500: "The server failed at this request.",
    503: "The engine, an adapter or a connection is not available; retry after `Retry-After` seconds.",
    504: "The request took longer than the server allows.",
    507: "The disk of the server's home is full.",
}
OF_BODIES = frozenset({400, 408, 413, 415, 504})
"""Those that only a request with a body, or one that names something, can have."""
OF_CHANGES = frozenset({409, 507})
"""Those that only a change of adapters can have."""

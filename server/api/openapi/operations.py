"""Lists every endpoint for the OpenAPI document: its input and its answers. A test compares the list with the
server's routes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from server.api.fields.admin import (
    AddFields,
    CanaryFields,
    LoadFields,
    NoFields,
    SettleFields,
    ShadowFields,
    UnloadFields,
)
from server.api.fields.embeddings import EmbeddingFields
from server.api.fields.generation import (
    ChatFields,
    CompletionFields,
    DetokenizeFields,
    LegacyFields,
    TokenizeFields,
)
from server.api.fields.multi_model import MultiModelFields
from server.api.fields.responses import ResponseFields

Tag = Literal["generation", "models", "tokens", "status", "existing backends", "adapters"]
Access = Literal["key", "open", "metrics", "admin"]
"""The key that an endpoint needs. `key`: one of `api_keys`, if any are set; `open`: no key; `metrics` and
`admin`: a key of that kind.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of the API: an HTTP method on a path."""

    method: Literal["get", "post", "delete"]
    path: str
    summary: str
    tag: Tag
    body: tuple[type[msgspec.Struct], ...] = ()
    """Structs of which one describes the operation's JSON body; empty if there is no body."""
    body_optional: bool = False
    answer: str = ""
    """Name of the answer's schema in `answers.SCHEMAS`; empty if the answer can be any object."""
    media_type: str = "application/json"
    """Media type of the answer."""
    streams: bool = False
    """True if the endpoint can also answer with server-sent events."""
    access: Access = "key"
    statuses: tuple[int, ...] = (200,)
    """HTTP statuses of success; empty if the operation never succeeds."""
    verdict: bool = False
    """True if an answer with status 503 can have the same schema as a successful answer."""
    deprecated: bool = False


_GENERATION = (
    Operation(
        method="post", path="/v1/chat/completions", tag="generation", streams=True,
        summary="Answer a conversation", body=(ChatFields,), answer="ChatCompletion",
    ),
    Operation(
        method="post", path="/v1/completions", tag="generation", streams=True,
        summary="Continue a text", body=(CompletionFields,), answer="Completion",
    ),
    Operation(
        method="post", path="/v1/responses", tag="generation", streams=True,
        summary="Answer a conversation (Responses API)", body=(ResponseFields,), answer="Response",
    ),
    Operation(
        method="get", path="/v1/responses/{id}", tag="generation",
        summary="Responses are not stored: always 404", statuses=(),
    ),
    Operation(
        method="delete", path="/v1/responses/{id}", tag="generation",
        summary="Responses are not stored: always 404", statuses=(),
    ),
    Operation(
        method="post", path="/v1/embeddings", tag="generation",
        summary="Compute embeddings of texts", body=(EmbeddingFields,), answer="Embeddings",
    ),
    Operation(
        method="post", path="/api/oqt/multi-model-query", tag="generation", streams=True,
        summary="Send one question to several models, and compare the answers", body=(MultiModelFields,),
    ),
    Operation(
        method="post", path="/invocations", tag="generation", streams=True,
        summary="SageMaker's endpoint for chat, completions and embeddings",
        body=(ChatFields, CompletionFields, EmbeddingFields),
    ),
)  # fmt: skip
_OTHERS = (
    Operation(method="get", path="/v1/models", tag="models", summary="List all models", answer="Models"),
    Operation(method="get", path="/v1/models/{id}", tag="models", summary="Show one model", answer="Model"),
    Operation(
        method="get", path="/v1/adapters", tag="models",
        summary="List all aliases with their versions and metrics", answer="Adapters",
    ),
    Operation(
        method="get", path="/v1/adapters/{name}", tag="models",
        summary="Show one adapter version with its model card and lineage", answer="AdapterVersion",
    ),
    Operation(
        method="post", path="/tokenize", tag="tokens",
        summary="Convert a prompt or a conversation to token ids", body=(TokenizeFields,), answer="Tokens",
    ),
    Operation(
        method="post", path="/detokenize", tag="tokens",
        summary="Convert token ids to text", body=(DetokenizeFields,), answer="Prompt",
    ),
    Operation(
        method="post", path="/inference/oneseek", tag="existing backends",
        summary="Answer with the adapter for the language", body=(LegacyFields,), answer="Inference",
    ),
    *(
        Operation(
            method="post", path=f"/inference/{base}", tag="existing backends", deprecated=True,
            summary="An older name of /inference/oneseek", body=(LegacyFields,), answer="Inference",
        )
        for base in ("mistral", "llama")
    ),
    Operation(
        method="get", path="/health", tag="status", access="open", verdict=True,
        summary="The server's health; details if a valid key is sent", answer="Status",
    ),
    Operation(
        method="get", path="/live", tag="status", access="open",
        summary="Liveness: 200 if the process answers", answer="Status",
    ),
    Operation(
        method="get", path="/ready", tag="status", access="open", verdict=True,
        summary="Readiness: 200 if requests are served, else 503", answer="Status",
    ),
    Operation(
        method="get", path="/ping", tag="status", access="open", verdict=True,
        summary="Readiness probe of SageMaker", answer="Status",
    ),
    Operation(
        method="post", path="/ping", tag="status", access="open", verdict=True,
        summary="Readiness probe of SageMaker", answer="Status",
    ),
    Operation(
        method="get", path="/version", tag="status", verdict=True, summary="Show versions", answer="Version",
    ),
    Operation(
        method="get", path="/metrics", tag="status", access="metrics", media_type="text/plain",
        summary="All metrics, for Prometheus",
    ),
    Operation(
        method="get", path="/metrics/recent", tag="status", access="metrics",
        summary="Metrics of the last 15 minutes, in samples of 5 seconds", answer="Samples",
    ),
    Operation(
        method="get", path="/", tag="status", access="open", media_type="text/html",
        summary="OneSeek's web page; 404 for clients that do not accept HTML", statuses=(200, 304),
    ),
    Operation(
        method="get", path="/page/{file}", tag="status", access="open", media_type="text/javascript",
        summary="A file of the web page", statuses=(200, 304),
    ),
    Operation(
        method="get", path="/openapi.json", tag="status", access="open", summary="This OpenAPI document",
        statuses=(200, 304),
    ),
    Operation(
        method="get", path="/docs", tag="status", access="open", media_type="text/html",
        summary="This OpenAPI document as a web page", statuses=(200, 304),
    ),
)  # fmt: skip

OPERATIONS: tuple[Operation, ...] = (*_GENERATION, *_OTHERS)
"""The operations that every server has."""


def _admin(
    path: str,
    summary: str,
    *body: type[msgspec.Struct],
    optional: bool = False,
    statuses: tuple[int, ...] = (200, 202),
) -> Operation:
    return Operation(
        method="post", path=path, summary=summary, tag="adapters", body=body, body_optional=optional,
        access="admin", statuses=statuses,
    )  # fmt: skip


def _shown(path: str, summary: str) -> Operation:
    return Operation(method="get", path=path, summary=summary, tag="adapters", access="admin")


def _lora(path: str, summary: str, body: type[msgspec.Struct]) -> Operation:
    return Operation(
        method="post", path=path, summary=summary, tag="adapters", body=(body,), access="admin",
        media_type="text/plain",
    )  # fmt: skip


ADMIN_OPERATIONS: tuple[Operation, ...] = (
    _lora("/v1/load_lora_adapter", "Load an adapter (as in vLLM)", LoadFields),
    _lora("/v1/unload_lora_adapter", "Unload an adapter (as in vLLM)", UnloadFields),
    _shown("/admin/adapters", "List every adapter version"),
    _admin("/admin/adapters", "Add a version from a folder or a URL", AddFields),
    _shown("/admin/adapters/{name}", "Show one adapter version"),
    _admin("/admin/adapters/{name}/promote", "Make a version active", NoFields, optional=True),
    _admin("/admin/adapters/{name}/rollback", "Return to the previous version", NoFields, optional=True),
    _admin("/admin/adapters/{name}/retire", "Stop serving a version", NoFields, optional=True),
    _admin(
        "/admin/adapters/{name}/verify", "Check a version's files by their digests", NoFields, optional=True,
        statuses=(200,),
    ),
    _admin("/admin/adapters/{name}/canary", "Split an alias's requests among versions", CanaryFields),
    _admin("/admin/adapters/{name}/shadow", "Send copies of requests to a version", ShadowFields),
    _admin(
        "/admin/adapters/{name}/settle", "End an alias's canaries and shadow", SettleFields,
        optional=True,
    ),
    _shown("/admin/adapters/{name}/rollout", "Show an alias's canaries and shadow"),
)  # fmt: skip
"""The operations of servers whose adapters can be changed over HTTP."""

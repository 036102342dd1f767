"""Every endpoint as the OpenAPI document lists it: what it takes and answers. A test compares the routes."""

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
"""What opens an endpoint: one of `api_keys` if there are any, nothing, or one of the keys of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: Literal["get", "post", "delete"]
    path: str
    summary: str
    tag: Tag
    body: tuple[type[msgspec.Struct], ...] = ()
    """What it takes, of several any one."""
    body_optional: bool = False
    answer: str = ""
    """Name of the answer's schema in `answers.SCHEMAS`; empty: any object."""
    media_type: str = "application/json"
    """The answer's."""
    streams: bool = False
    """Whether it answers with events too."""
    access: Access = "key"
    statuses: tuple[int, ...] = (200,)
    """How it says that all went well; none if it never does."""
    verdict: bool = False
    """Whether a 503 has the answer's own shape."""
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
        summary="Not stored: always 404", statuses=(),
    ),
    Operation(
        method="delete", path="/v1/responses/{id}", tag="generation",
        summary="Not stored: always 404", statuses=(),
    ),
    Operation(
        method="post", path="/v1/embeddings", tag="generation",
        summary="Turn texts into vectors", body=(EmbeddingFields,), answer="Embeddings",
    ),
    Operation(
        method="post", path="/api/oqt/multi-model-query", tag="generation", streams=True,
        summary="Ask several voices at once, and compare their answers", body=(MultiModelFields,),
    ),
    Operation(
        method="post", path="/invocations", tag="generation", streams=True,
        summary="Chat, completions or embeddings, as the body says (SageMaker)",
        body=(ChatFields, CompletionFields, EmbeddingFields),
    ),
)  # fmt: skip
_OTHERS = (
    Operation(method="get", path="/v1/models", tag="models", summary="List all models", answer="Models"),
    Operation(method="get", path="/v1/models/{id}", tag="models", summary="Show one model", answer="Model"),
    Operation(
        method="post", path="/tokenize", tag="tokens",
        summary="Turn a prompt or a conversation into tokens", body=(TokenizeFields,), answer="Tokens",
    ),
    Operation(
        method="post", path="/detokenize", tag="tokens",
        summary="Turn tokens into text", body=(DetokenizeFields,), answer="Prompt",
    ),
    Operation(
        method="post", path="/inference/oneseek", tag="existing backends",
        summary="Answer a question by the adapter of its language", body=(LegacyFields,), answer="Inference",
    ),
    *(
        Operation(
            method="post", path=f"/inference/{base}", tag="existing backends", deprecated=True,
            summary="The same under an old name", body=(LegacyFields,), answer="Inference",
        )
        for base in ("mistral", "llama")
    ),
    Operation(
        method="get", path="/health", tag="status", access="open", verdict=True,
        summary="How the server is; details for keys", answer="Status",
    ),
    Operation(
        method="get", path="/live", tag="status", access="open",
        summary="Whether the process answers", answer="Status",
    ),
    Operation(
        method="get", path="/ready", tag="status", access="open", verdict=True,
        summary="Whether requests will be served", answer="Status",
    ),
    Operation(
        method="get", path="/ping", tag="status", access="open", verdict=True,
        summary="The same (SageMaker)", answer="Status",
    ),
    Operation(
        method="post", path="/ping", tag="status", access="open", verdict=True,
        summary="The same (SageMaker)", answer="Status",
    ),
    Operation(
        method="get", path="/version", tag="status", verdict=True, summary="What runs", answer="Version",
    ),
    Operation(
        method="get", path="/metrics", tag="status", access="metrics", media_type="text/plain",
        summary="All metrics, for Prometheus",
    ),
    Operation(
        method="get", path="/openapi.json", tag="status", access="open", summary="This document",
        statuses=(200, 304),
    ),
    Operation(
        method="get", path="/docs", tag="status", access="open", media_type="text/html",
        summary="This document as a page", statuses=(200, 304),
    ),
)  # fmt: skip

OPERATIONS: tuple[Operation, ...] = (*_GENERATION, *_OTHERS)
"""What every server has."""


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
    _lora("/v1/load_lora_adapter", "Load an adapter, as vLLM does", LoadFields),
    _lora("/v1/unload_lora_adapter", "Unload an adapter, as vLLM does", UnloadFields),
    _shown("/admin/adapters", "List every version"),
    _admin("/admin/adapters", "Add a version from a folder or a URL", AddFields),
    _shown("/admin/adapters/{name}", "Show one version"),
    _admin("/admin/adapters/{name}/promote", "Make a version the active one", NoFields, optional=True),
    _admin("/admin/adapters/{name}/rollback", "Go back to the version before", NoFields, optional=True),
    _admin("/admin/adapters/{name}/retire", "Serve a version no longer", NoFields, optional=True),
    _admin(
        "/admin/adapters/{name}/verify", "Check files against what was recorded", NoFields, optional=True,
        statuses=(200,),
    ),
    _admin("/admin/adapters/{name}/canary", "Give other versions a part of the requests", CanaryFields),
    _admin("/admin/adapters/{name}/shadow", "Have a version answer too, unseen", ShadowFields),
    _admin(
        "/admin/adapters/{name}/settle", "Give all requests to the active version", SettleFields,
        optional=True,
    ),
    _shown("/admin/adapters/{name}/rollout", "Show how requests are divided"),
)  # fmt: skip
"""What a server has whose adapters can be changed over HTTP."""

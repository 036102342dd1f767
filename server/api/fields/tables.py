"""Lists how each endpoint handles each field of OpenAI, vLLM and SGLang. docs/api.md shows these tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from server.api.fields import notes
from server.api.fields.embeddings import EMBEDDING_HINTS, EMBEDDING_REFUSED, EmbeddingFields
from server.api.fields.generation import ChatFields, CompletionFields, TokenizeFields, known
from server.api.fields.refusals import (
    CHAT_REFUSED,
    COMPLETION_HINTS,
    COMPLETION_REFUSED,
    HINTS,
    TOKENIZE_REFUSED,
    FieldKind,
    Refusal,
)
from server.api.fields.responses import ECHOED, RESPONSE_HINTS, RESPONSE_REFUSED, ResponseFields


@dataclass(frozen=True, slots=True)
class FieldDescription:
    """How an endpoint handles a field: used, ignored or refused."""

    kind: FieldKind
    """`honoured`: works as in the documentation of OpenAI, vLLM or SGLang; `ignored`: has no effect;
    `refused`: the request is answered with 400.
    """
    note: str
    """Allowed values of the field, or the reason for refusing it, in Markdown. May be empty."""


@dataclass(frozen=True, slots=True)
class FieldTable:
    """All fields of one endpoint, and how the endpoint handles them."""

    path: str
    body: type[msgspec.Struct]
    """The struct that defines the honoured fields."""
    ignored: frozenset[str]
    refused: Mapping[str, Refusal]
    notes: Mapping[str, str]

    def describe(self) -> dict[str, FieldDescription]:
        """Return every field with how it is handled: the honoured fields first, then the ignored, then the
        refused, each group sorted by name.
        """
        rows: dict[str, FieldDescription] = {}
        honoured = known(self.body)
        for name in sorted(honoured - self.ignored):
            rows[name] = FieldDescription("honoured", self.notes.get(name, ""))
        for name in sorted(self.ignored):
            rows[name] = FieldDescription("ignored", self.notes.get(name, ""))
        for name in sorted(self.refused.keys() - honoured - self.ignored):
            rows[name] = FieldDescription("refused", self.refused[name].why)
        return rows


CHAT = FieldTable("/v1/chat/completions", ChatFields, HINTS, CHAT_REFUSED, notes.GENERATION)
COMPLETIONS = FieldTable(
    "/v1/completions", CompletionFields, COMPLETION_HINTS, COMPLETION_REFUSED, notes.GENERATION
)
RESPONSES = FieldTable(
    "/v1/responses", ResponseFields, RESPONSE_HINTS | ECHOED, RESPONSE_REFUSED, notes.RESPONSE
)
EMBEDDINGS = FieldTable(
    "/v1/embeddings", EmbeddingFields, EMBEDDING_HINTS, EMBEDDING_REFUSED, notes.EMBEDDING
)
TOKENIZE = FieldTable("/tokenize", TokenizeFields, HINTS, TOKENIZE_REFUSED, notes.TOKENIZE)

TABLES = (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, TOKENIZE)


def describe_generation() -> dict[str, FieldDescription]:
    """Return the fields of chat and text completions in one table: first the fields that either endpoint
    honours, then those that either ignores, then the refused fields.
    """
    kinds: dict[FieldKind, dict[str, FieldDescription]] = {"honoured": {}, "ignored": {}, "refused": {}}
    both = (CHAT.describe(), COMPLETIONS.describe())
    for name in sorted({*both[0], *both[1]}):
        found = [table[name] for table in both if name in table]
        best = min(found, key=lambda row: list(kinds).index(row.kind))
        kinds[best.kind][name] = best
    return {name: row for rows in kinds.values() for name, row in rows.items()}

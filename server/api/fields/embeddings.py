"""Defines every field of `POST /v1/embeddings`, and whether it is honoured, ignored or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.api.fields.generation import Name, known
from server.api.fields.refusals import HINTS, REFUSED, FieldKind, Refusal

MAX_INPUTS = 2048
"""OpenAI's maximum number of texts in one embeddings request."""
MAX_DIMENSIONS = 65_536


class EmbeddingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /v1/embeddings`."""

    input: Any
    model: Name = "oneseek"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS)] | None = None
    receipt: bool = False
    lora_path: Any = None
    adapter_id: Any = None


EMBEDDING_HINTS = HINTS - {"include_reasoning", "separate_reasoning", "stream_reasoning", "stream_interval"}
"""Fields that are accepted and ignored, because they do not change the vectors."""

_TEXT = "send input instead, with texts or token ids"

EMBEDDING_REFUSED: Mapping[str, Refusal] = {
    "truncate_prompt_tokens": REFUSED["truncate_prompt_tokens"],
    "cache_salt": REFUSED["cache_salt"],
    "mm_processor_kwargs": REFUSED["mm_processor_kwargs"],
    "media_io_kwargs": REFUSED["media_io_kwargs"],
    "chat_template": REFUSED["chat_template"],
    "adapter_source": REFUSED["adapter_source"],
    "messages": Refusal(_TEXT),
    "prompt": Refusal(_TEXT),
    "add_special_tokens": Refusal("the tokenizer of the base always adds its own special tokens", (True,)),
    "normalize": Refusal("vectors always have unit length", (True,)),
    "use_activation": Refusal("vectors always have unit length", (True,)),
    "embed_dtype": Refusal("vectors always hold 32-bit floats", ("float32",)),
    "endianness": Refusal("base64 always holds little-endian floats", ("little", "native")),
}
"""Maps each refused field, which would change the vectors but is not supported, to the reason."""


def embedding_table() -> dict[str, FieldKind]:
    """Return every field of `POST /v1/embeddings`, with how it is handled: honoured, ignored or refused."""
    honoured: dict[str, FieldKind] = dict.fromkeys(known(EmbeddingFields), "honoured")
    ignored: dict[str, FieldKind] = dict.fromkeys(EMBEDDING_HINTS, "ignored")
    refused: dict[str, FieldKind] = dict.fromkeys(EMBEDDING_REFUSED, "refused")
    return honoured | ignored | refused

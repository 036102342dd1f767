"""Defines every field of `POST /v1/responses`, and whether it is honoured, ignored or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.api.fields.generation import (
    MAX_MESSAGES,
    Count,
    JsonObjectFormat,
    Logprobs,
    Name,
    NamedSchema,
    OneModelFields,
    ReasoningEffort,
    TextFormat,
    known,
)
from server.api.fields.refusals import HINTS, REFUSED, FieldKind, Refusal

MAX_METADATA = 16
LOGPROBS_INCLUDED = "message.output_text.logprobs"

MetadataKey = Annotated[str, Meta(max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
IncludeOption = Literal[
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "web_search_call.action.sources",
    "web_search_call.results",
]
"""Allowed values of `include`. Only the first value has an effect; the others are for output items that this
server never makes.
"""


class ResponseStreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `stream_options` in OpenAI's Responses API."""

    include_obfuscation: bool = False


class ResponseSchemaFormat(
    NamedSchema, tag_field="type", tag="json_schema", kw_only=True, forbid_unknown_fields=True
):
    """The `text.format` for JSON that matches a schema: like `response_format` of chat completions, but
    without the nested `json_schema`.
    """


class ResponseText(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `text` in OpenAI's Responses API."""

    format: TextFormat | JsonObjectFormat | ResponseSchemaFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `reasoning` in OpenAI's Responses API. Summaries of the reasoning are not supported."""

    effort: ReasoningEffort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponseFields(OneModelFields, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /v1/responses`."""

    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    text: ResponseText | None = None
    include: Annotated[list[IncludeOption], Meta(max_length=16)] = msgspec.field(
        default_factory=list[IncludeOption]
    )
    top_logprobs: Logprobs = 0
    stream_options: ResponseStreamOptions | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=MAX_METADATA)] = msgspec.field(
        default_factory=dict[str, str]
    )
    reasoning: ReasoningOptions | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    lora_path: Any = None
    adapter_id: Any = None
    max_tool_calls: Count | None = None
    parallel_tool_calls: bool = True
    prompt_cache_key: Name | None = None
    safety_identifier: Name | None = None
    user: Name | None = None

    @property
    def with_logprobs(self) -> bool:
        """True if the request asks for log probabilities of the text."""
        return LOGPROBS_INCLUDED in self.include


ECHOED = frozenset(
    {"metadata", "max_tool_calls", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "user"}
)
"""Fields that have no effect but that the answer repeats, as OpenAI's answer does."""

RESPONSE_HINTS = HINTS - ECHOED
"""Fields that are accepted and ignored, and that the answer does not repeat."""

_TOOLS = "this endpoint does not support tools; use /v1/chat/completions"
_FORMAT = "send text.format instead"
_STORED = "the server does not store responses; send the whole conversation as input"
_PLACE = "the server does not answer in the background; read the answer from this connection"

RESPONSE_REFUSED: Mapping[str, Refusal] = {
    name: REFUSED[name]
    for name in (
        "moderation", "chat_template", "mm_processor_kwargs", "media_io_kwargs", "cache_salt",
        "kv_transfer_params", "vllm_xargs", "skip_special_tokens", "include_stop_str_in_output",
        "adapter_source", "structural_tag",
    )
} | {
    "tools": Refusal(_TOOLS, ([],)),
    "tool_choice": Refusal(_TOOLS, ("none", "auto")),
    "previous_response_id": Refusal(_STORED),
    "conversation": Refusal(_STORED),
    "previous_input_messages": Refusal(_STORED, ([],)),
    "prompt": Refusal("the server does not store prompt templates; send input and instructions"),
    "background": Refusal(_PLACE, (False,)),
    "background_options": Refusal(_PLACE, ({},)),
    "truncation": Refusal("the server never truncates prompts; shorten the input", ("disabled",)),
    "context_management": Refusal("the server never compacts conversations; shorten the input", ([],)),
    "image": Refusal("only text is supported", ({},)),
    "access_programs": Refusal("it has an effect at OpenAI only", ({},)),
    "messages": Refusal("send input instead"),
    "max_tokens": Refusal("send max_output_tokens instead"),
    "max_completion_tokens": Refusal("send max_output_tokens instead"),
    "response_format": Refusal(_FORMAT, ({"type": "text"},)),
    "structured_outputs": Refusal(_FORMAT),
    "n": Refusal("this endpoint gives exactly one answer", (1,)),
    "logprobs": Refusal(f"send include with {LOGPROBS_INCLUDED!r} instead", (False,)),
}  # fmt: skip
"""Maps each refused field, which is not supported or has another name in the Responses API, to the reason."""


def response_table() -> dict[str, FieldKind]:
    """Return every field of `POST /v1/responses`, with how it is handled: honoured, ignored or refused."""
    honoured: dict[str, FieldKind] = dict.fromkeys(known(ResponseFields), "honoured")
    ignored: dict[str, FieldKind] = dict.fromkeys(RESPONSE_HINTS | ECHOED, "ignored")
    refused: dict[str, FieldKind] = dict.fromkeys(RESPONSE_REFUSED, "refused")
    return honoured | ignored | refused

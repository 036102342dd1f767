"""Defines every field of chat and text completions, and whether it is honoured, ignored or refused.

The honoured fields are those of the structs in this module. `server.api.fields.tables` lists how every
endpoint handles each field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from server.api.fields.refusals import HINTS, REFUSED, STRUCTURED_REFUSED, FieldKind, Refusal

MAX_CHOICES = 16
MAX_LOGPROBS = 20
MAX_MESSAGES = 4096
MAX_PROMPTS = 64
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_STOP_TOKENS = 128
MAX_BIASES = 1024
MAX_OPTIONS = 1024
MAX_TOOLS = 128
MAX_DESCRIPTION = 16 * 1024
INT64 = 2**63 - 1

Name = Annotated[str, Meta(max_length=256)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
Logprobs = Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Schema = dict[str, Any] | str
Pattern = Annotated[str, Meta(min_length=1)]
Choices = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=MAX_OPTIONS)]
ToolName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}\Z")]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of OpenAI's `stream_options`."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class TextFormat(msgspec.Struct, tag_field="type", tag="text", kw_only=True, forbid_unknown_fields=True):
    """The `response_format` for plain text, which has no effect."""


class JsonObjectFormat(
    msgspec.Struct, tag_field="type", tag="json_object", kw_only=True, forbid_unknown_fields=True
):
    """The `response_format` that requires a JSON object, whatever its fields."""

    FORBIDS: ClassVar[bool] = True


class NamedSchema(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `response_format.json_schema`. The schema is always enforced, whatever `strict` is."""

    FORBIDS: ClassVar[bool] = True
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    schema: dict[str, Any]
    strict: bool | None = None
    description: str | None = None


class JsonSchemaFormat(
    msgspec.Struct, tag_field="type", tag="json_schema", kw_only=True, forbid_unknown_fields=True
):
    """The `response_format` for JSON that matches a schema."""

    FORBIDS: ClassVar[bool] = True
    json_schema: NamedSchema


class StructuredOutputs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """vLLM's `structured_outputs`, of which a request sets exactly one field."""

    FORBIDS: ClassVar[bool] = True
    REFUSED: ClassVar[Mapping[str, Refusal]] = STRUCTURED_REFUSED
    json: Schema | None = None
    regex: Pattern | None = None
    choice: Choices | None = None
    grammar: Pattern | None = None
    json_object: bool | None = None


class SamplingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Sampling fields that any base accepts. A field that is None gets the base's default
    (`server.serving.sampling_defaults`).
    """

    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=MAX_STOPS)] = msgspec.field(
        default_factory=list[str]
    )
    seed: Annotated[int, Meta(ge=-INT64 - 1, le=INT64)] | None = None
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    stream: bool = False
    receipt: bool = False
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100.0)] | None = None
    min_tokens: Count = 0
    ignore_eos: bool = False


class OneModelFields(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """Fields of endpoints at which a single model answers, including fields that hold token ids of the
    model's vocabulary.
    """

    model: Name = "oneseek"
    logit_bias: Annotated[
        dict[str, Annotated[float, Meta(ge=-100.0, le=100.0)]], Meta(max_length=MAX_BIASES)
    ] = msgspec.field(default_factory=dict[str, float])
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKENS)] = msgspec.field(
        default_factory=list[int]
    )


class GenerationFields(OneModelFields, kw_only=True, forbid_unknown_fields=True):
    """Fields that chat completions and text completions have in common."""

    max_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] = 1
    stream_options: StreamOptions | None = None
    prompt_logprobs: Logprobs | None = None
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    lora_path: Any = None
    adapter_id: Any = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: Pattern | None = None
    guided_choice: Choices | None = None
    guided_grammar: Pattern | None = None


class FunctionFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of a tool's `function`: its name, description and parameters."""

    name: ToolName
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One tool in the request's field `tools`."""

    type: Literal["function"]
    function: FunctionFields


class ChosenFunction(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The `function` in a `tool_choice`: it names the tool to call."""

    name: ToolName


class ChosenTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A `tool_choice` that requires a call of one named tool."""

    type: Literal["function"]
    function: ChosenFunction


class ChatFields(GenerationFields, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: Logprobs = 0
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: ReasoningEffort | None = None
    thinking_token_budget: int | None = None
    echo: bool = False
    tools: Annotated[list[ToolFields], Meta(max_length=MAX_TOOLS)] = msgspec.field(
        default_factory=list[ToolFields]
    )
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool = True


class CompletionFields(GenerationFields, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /v1/completions`."""

    prompt: Any
    logprobs: Logprobs | None = None
    echo: bool = False
    add_special_tokens: bool = True


class TokenizeFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /tokenize`, which tokenizes a prompt or messages."""

    model: Name = "oneseek"
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: ReasoningEffort | None = None
    tools: Annotated[list[ToolFields], Meta(max_length=MAX_TOOLS)] = msgspec.field(
        default_factory=list[ToolFields]
    )
    return_token_strs: bool = False
    lora_path: Any = None
    adapter_id: Any = None


class DetokenizeFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /detokenize`."""

    tokens: list[TokenId]
    model: Name = "oneseek"


class LegacyFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /inference/*`, the API of existing OneSeek installations."""

    text: Annotated[str, Meta(min_length=1)]
    max_length: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    receipt: bool = False


def known(body: type[msgspec.Struct]) -> frozenset[str]:
    """Return the names of the fields that the struct `body` has."""
    return frozenset(body.__struct_fields__)


def describe_fields() -> dict[str, FieldKind]:
    """Return every field of chat and text completions, with how it is handled: honoured, ignored or
    refused.
    """
    honoured: dict[str, FieldKind] = dict.fromkeys(known(ChatFields) | known(CompletionFields), "honoured")
    ignored: dict[str, FieldKind] = dict.fromkeys(HINTS, "ignored")
    refused: dict[str, FieldKind] = dict.fromkeys(REFUSED, "refused")
    return refused | ignored | honoured

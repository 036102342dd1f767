"""Every field of chat and text completions: honoured, accepted as a hint, or refused by name.

The honoured ones are the structs' own fields. docs/api.md shows the same table; a test keeps the two equal.
`response_fields` and `embedding_fields` are the same for their endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

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
StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `stream_options`."""

    include_usage: bool = False
    include_obfuscation: bool = False


class TextFormat(msgspec.Struct, tag_field="type", tag="text", kw_only=True, forbid_unknown_fields=True):
    """A `response_format` that asks for nothing."""


class JsonObjectFormat(
    msgspec.Struct, tag_field="type", tag="json_object", kw_only=True, forbid_unknown_fields=True
):
    """Any JSON object."""


class NamedSchema(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `response_format.json_schema`. The schema is kept to, whatever `strict` says."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    schema: dict[str, Any]
    strict: bool | None = None
    description: str | None = None


class JsonSchemaFormat(
    msgspec.Struct, tag_field="type", tag="json_schema", kw_only=True, forbid_unknown_fields=True
):
    """JSON that fits a schema."""

    json_schema: NamedSchema


class StructuredOutputs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """vLLM's `structured_outputs`: one of these."""

    json: Schema | None = None
    regex: Pattern | None = None
    choice: Choices | None = None
    grammar: Pattern | None = None
    json_object: bool | None = None


class SamplingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How answers are drawn, on any base; None leaves it to the base (`server.serving.sampling_defaults`)."""

    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
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
    """What an endpoint takes where one model answers, token ids of its vocabulary among it."""

    model: Name = "oneseek"
    logit_bias: Annotated[
        dict[str, Annotated[float, Meta(ge=-100.0, le=100.0)]], Meta(max_length=MAX_BIASES)
    ] = msgspec.field(default_factory=dict[str, float])
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKENS)] = msgspec.field(
        default_factory=list[int]
    )


class GenerationFields(OneModelFields, kw_only=True, forbid_unknown_fields=True):
    """What chat and completions take."""

    max_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] = 1
    stream_options: StreamOptions | None = None
    prompt_logprobs: Logprobs | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: Pattern | None = None
    guided_choice: Choices | None = None
    guided_grammar: Pattern | None = None


class FunctionFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A tool's `function`."""

    name: ToolName
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One of `tools`."""

    type: Literal["function"]
    function: FunctionFields


class ChosenFunction(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The `function` of a `tool_choice`."""

    name: ToolName


class ChosenTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A `tool_choice` that names its tool."""

    type: Literal["function"]
    function: ChosenFunction


class ChatFields(GenerationFields, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: Logprobs = 0
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    echo: bool = False
    tools: Annotated[list[ToolFields], Meta(max_length=MAX_TOOLS)] = msgspec.field(
        default_factory=list[ToolFields]
    )
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool = True


class CompletionFields(GenerationFields, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/completions`."""

    prompt: Any
    logprobs: Logprobs | None = None
    echo: bool = False


class TokenizeFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /tokenize`, with a prompt or with messages."""

    model: Name = "oneseek"
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool = False


class DetokenizeFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /detokenize`."""

    tokens: list[TokenId]
    model: Name = "oneseek"


class LegacyFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /inference/*`."""

    text: Annotated[str, Meta(min_length=1)]
    max_length: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    receipt: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is refused, and the values that ask for nothing and therefore pass."""

    why: str
    harmless: tuple[object, ...] = ()


HINTS = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_options", "prompt_cache_retention", "priority", "request_id",
    }
)  # fmt: skip
"""Fields that change no token of the answer: accepted, and at most used to tell conversations apart."""

_FUNCTIONS = "it is OpenAI's older form of tools"
_TEMPLATE = "the template is the model's own and cannot be changed by a request"
_SHAPE = "the answer has one shape only"

REFUSED: Mapping[str, Refusal] = {
    "functions": Refusal(f"{_FUNCTIONS}; send tools", ([],)),
    "function_call": Refusal(f"{_FUNCTIONS}; send tools and tool_choice", ("none", "auto")),
    "guided_decoding_backend": Refusal("there is one, llguidance"),
    "guided_whitespace_pattern": Refusal("generated JSON has at most one space after a comma or a colon"),
    "structural_tag": Refusal("use response_format or structured_outputs"),
    "modalities": Refusal("only text is served", (["text"],)),
    "audio": Refusal("only text is served"),
    "prediction": Refusal("predicted outputs are not served"),
    "web_search_options": Refusal("the server searches nothing"),
    "reasoning_effort": Refusal("the model has no reasoning to scale", ("none",)),
    "include_reasoning": Refusal("the model has no reasoning to show", (False,)),
    "moderation": Refusal("moderation is not served"),
    "verbosity": Refusal("the model has no such setting; ask for it in the prompt", ("medium",)),
    "best_of": Refusal("ranking of hidden choices is not served; use n", (1,)),
    "use_beam_search": Refusal("beam search is not served", (False,)),
    "length_penalty": Refusal("it belongs to beam search, which is not served", (1, 1.0)),
    "early_stopping": Refusal("it belongs to beam search, which is not served", (False,)),
    "suffix": Refusal("the model fills in no middle", ("",)),
    "chat_template": Refusal(_TEMPLATE),
    "chat_template_kwargs": Refusal(_TEMPLATE, ({},)),
    "documents": Refusal(_TEMPLATE, ([],)),
    "mm_processor_kwargs": Refusal("only text is served", ({},)),
    "prompt_embeds": Refusal("prompts are text or token ids"),
    "logits_processors": Refusal("code of a client is never run", ([],)),
    "bad_words": Refusal("use logit_bias", ([],)),
    "allowed_token_ids": Refusal("use logit_bias"),
    "truncate_prompt_tokens": Refusal("prompts are never cut in silence; shorten it before sending"),
    "skip_special_tokens": Refusal("special tokens are never part of the text", (True,)),
    "spaces_between_special_tokens": Refusal("special tokens are never part of the text", (True,)),
    "include_stop_str_in_output": Refusal("stop strings are never part of the text", (False,)),
    "return_tokens_as_token_ids": Refusal(_SHAPE, (False,)),
    "return_token_ids": Refusal(_SHAPE, (False,)),
    "cache_salt": Refusal("the server salts the prefix cache by API key"),
    "kv_transfer_params": Refusal("keys and values stay in this server"),
    "vllm_xargs": Refusal("they belong to vLLM's own server", ({},)),
}
"""Fields that would change the answer and cannot be honoured."""

FieldKind = Literal["honoured", "hint", "refused"]


def known(body: type[msgspec.Struct]) -> frozenset[str]:
    """The fields that `body` honours."""
    return frozenset(body.__struct_fields__)


def describe_fields() -> dict[str, FieldKind]:
    """Every field of chat and completions with what becomes of it."""
    honoured: dict[str, FieldKind] = dict.fromkeys(known(ChatFields) | known(CompletionFields), "honoured")
    hints: dict[str, FieldKind] = dict.fromkeys(HINTS, "hint")
    refused: dict[str, FieldKind] = dict.fromkeys(REFUSED, "refused")
    return honoured | hints | refused

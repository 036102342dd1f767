"""Every field of chat and text completions: honoured, ignored, or refused by name.

The honoured ones are the structs' own fields. `server.api.fields.tables` holds the tables of all endpoints.
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
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `stream_options`."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
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
    """What a generation endpoint takes; None leaves it to the base (`server.serving.sampling_defaults`)."""

    model: Name = "oneseek"
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=MAX_STOPS)] = msgspec.field(
        default_factory=list[str]
    )
    seed: Annotated[int, Meta(ge=-INT64 - 1, le=INT64)] | None = None
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    logit_bias: Annotated[
        dict[str, Annotated[float, Meta(ge=-100.0, le=100.0)]], Meta(max_length=MAX_BIASES)
    ] = msgspec.field(default_factory=dict[str, float])
    stream: bool = False
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100.0)] | None = None
    min_tokens: Count = 0
    ignore_eos: bool = False
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_STOP_TOKENS)] = msgspec.field(
        default_factory=list[int]
    )


class GenerationFields(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """What chat and completions take."""

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
    """`POST /v1/completions`."""

    prompt: Any
    logprobs: Logprobs | None = None
    echo: bool = False
    add_special_tokens: bool = True


class TokenizeFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`POST /tokenize`, with a prompt or with messages."""

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


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is refused, and the values that ask for nothing and therefore pass."""

    why: str
    harmless: tuple[object, ...] = ()


HINTS = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_options", "prompt_cache_retention", "priority", "request_id", "session_id",
        "include_reasoning", "stream_interval", "truncation_side", "return_token_offsets", "return_mm_kwargs",
        "rid", "extra_key", "custom_labels", "separate_reasoning", "stream_reasoning", "ngram_corpus_id",
        "return_cached_tokens_details", "routed_dp_rank", "disagg_prefill_dp_rank", "data_parallel_rank",
    }
)  # fmt: skip
"""Fields that change no token of the answer: ignored, and at most used to tell conversations apart."""

_FUNCTIONS = "it is OpenAI's older form of tools"
_TEMPLATE = "the template is the model's own and cannot be changed by a request"
_SPECIAL = "special tokens are never part of the text"
_BEAMS = "it belongs to beam search, which is not served"
_TEXT_ONLY = "only text is served"
_VALUES_STAY = "keys and values stay in this server"
_BLEND = "send a blend as model, such as sv=0.7,en=0.3"
_EXPERTS = "experts are not reported"

REFUSED: Mapping[str, Refusal] = {
    "functions": Refusal(f"{_FUNCTIONS}; send tools", ([],)),
    "function_call": Refusal(f"{_FUNCTIONS}; send tools and tool_choice", ("none", "auto")),
    "guided_decoding_backend": Refusal("there is one, llguidance"),
    "guided_whitespace_pattern": Refusal("generated JSON has at most one space after a comma or a colon"),
    "structural_tag": Refusal("use response_format or structured_outputs"),
    "regex": Refusal("send structured_outputs with regex"),
    "json_schema": Refusal("send response_format, or structured_outputs with json"),
    "ebnf": Refusal("send structured_outputs with grammar, in Lark's syntax"),
    "modalities": Refusal(_TEXT_ONLY, (["text"],)),
    "audio": Refusal(_TEXT_ONLY),
    "prediction": Refusal("predicted outputs are not served"),
    "web_search_options": Refusal("the server searches nothing"),
    "moderation": Refusal("moderation is not served"),
    "verbosity": Refusal("the model has no such setting; ask for it in the prompt", ("medium",)),
    "best_of": Refusal("ranking of hidden choices is not served; use n", (1,)),
    "use_beam_search": Refusal("beam search is not served", (False,)),
    "length_penalty": Refusal(_BEAMS, (1, 1.0)),
    "early_stopping": Refusal(_BEAMS, (False,)),
    "suffix": Refusal("the model fills in no middle", ("",)),
    "chat_template": Refusal(_TEMPLATE),
    "documents": Refusal(_TEMPLATE, ([],)),
    "mm_processor_kwargs": Refusal(_TEXT_ONLY, ({},)),
    "media_io_kwargs": Refusal(_TEXT_ONLY, ({},)),
    "images_config": Refusal(_TEXT_ONLY, ({},)),
    "max_dynamic_patch": Refusal(_TEXT_ONLY),
    "min_dynamic_patch": Refusal(_TEXT_ONLY),
    "use_audio_in_video": Refusal(_TEXT_ONLY, (False,)),
    "prompt_embeds": Refusal("prompts are text or token ids"),
    "input_ids": Refusal("send token ids to /v1/completions as prompt"),
    "logits_processors": Refusal("code of a client is never run", ([],)),
    "custom_logit_processor": Refusal("code of a client is never run"),
    "custom_params": Refusal("code of a client is never run", ({},)),
    "bad_words": Refusal("use logit_bias", ([],)),
    "allowed_token_ids": Refusal("use logit_bias"),
    "logprob_token_ids": Refusal("use top_logprobs"),
    "watermarking": Refusal("answers are not watermarked", (False,)),
    "repetition_detection": Refusal("use repetition_penalty, or end the stream"),
    "stop_regex": Refusal("send stop, with strings", ([],)),
    "no_stop_trim": Refusal("stop strings are never part of the text", (False,)),
    "truncate_prompt_tokens": Refusal("prompts are never cut in silence; shorten it before sending"),
    "skip_special_tokens": Refusal(_SPECIAL, (True,)),
    "spaces_between_special_tokens": Refusal(_SPECIAL, (True,)),
    "include_stop_str_in_output": Refusal("stop strings are never part of the text", (False,)),
    "return_prompt_text": Refusal("send return_token_ids, and the ids to /detokenize", (False,)),
    "return_prompt_token_ids": Refusal("send return_token_ids", (False,)),
    "return_meta_info": Refusal("the headers of the answer say what made it", (False,)),
    "return_hidden_states": Refusal("hidden states are not reported", (False,)),
    "return_routed_experts": Refusal(_EXPERTS, (False,)),
    "routed_experts_start_len": Refusal(_EXPERTS, (0,)),
    "routed_experts_prompt_start": Refusal(_EXPERTS, (0,)),
    "session_params": Refusal("nothing is stored; send the whole conversation", ({},)),
    "adapter_source": Refusal("adapters are those that the server has; name one of GET /v1/models"),
    "adapter_parameters": Refusal(_BLEND),
    "merged_adapters": Refusal(_BLEND),
    "cache_salt": Refusal("the server salts the prefix cache by API key"),
    "kv_transfer_params": Refusal(_VALUES_STAY),
    "ec_transfer_params": Refusal(_VALUES_STAY),
    "bootstrap_host": Refusal(_VALUES_STAY),
    "bootstrap_port": Refusal(_VALUES_STAY),
    "bootstrap_room": Refusal(_VALUES_STAY),
    "vllm_xargs": Refusal("they belong to vLLM's own server", ({},)),
}
"""Fields that would change the answer and cannot be honoured."""

_PROMPT = "this endpoint calls it messages"
CHAT_REFUSED: Mapping[str, Refusal] = REFUSED | {
    "prompt": Refusal(_PROMPT),
    "input": Refusal(_PROMPT),
    "add_special_tokens": Refusal("the chat template writes the special tokens", (False,)),
}
"""Those of chat completions, with what only other endpoints take."""

_CHAT = "only /v1/chat/completions takes it"
COMPLETION_REFUSED: Mapping[str, Refusal] = REFUSED | {
    "messages": Refusal(_CHAT),
    "input": Refusal("this endpoint calls it prompt"),
    "max_completion_tokens": Refusal("this endpoint calls it max_tokens"),
    "top_logprobs": Refusal("this endpoint calls it logprobs"),
    "tools": Refusal(_CHAT, ([],)),
    "tool_choice": Refusal(_CHAT, ("none", "auto")),
    "add_generation_prompt": Refusal(_CHAT),
    "continue_final_message": Refusal(_CHAT, (False,)),
    "chat_template_kwargs": Refusal(_CHAT, ({},)),
}
"""The same of text completions."""
COMPLETION_HINTS = HINTS | {"parallel_tool_calls", "reasoning_effort", "thinking_token_budget"}
"""Those of chat that change nothing where no template is used."""

FieldKind = Literal["honoured", "ignored", "refused"]


def known(body: type[msgspec.Struct]) -> frozenset[str]:
    """The fields that `body` honours."""
    return frozenset(body.__struct_fields__)


def describe_fields() -> dict[str, FieldKind]:
    """Every field of chat and completions with what becomes of it."""
    honoured: dict[str, FieldKind] = dict.fromkeys(known(ChatFields) | known(CompletionFields), "honoured")
    ignored: dict[str, FieldKind] = dict.fromkeys(HINTS, "ignored")
    refused: dict[str, FieldKind] = dict.fromkeys(REFUSED, "refused")
    return refused | ignored | honoured

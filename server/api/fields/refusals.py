"""Lists fields of OpenAI, vLLM and SGLang that are ignored, or refused with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from server.errors import ApiError, bad_field

FieldKind = Literal["honoured", "ignored", "refused"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is refused, and its harmless values, which are allowed because they have no effect."""

    why: str
    harmless: tuple[object, ...] = ()

    def allows(self, value: object) -> bool:
        """Return True if `value` has no effect, so that the field is not refused."""
        return any(type(value) is type(allowed) and value == allowed for allowed in self.harmless)

    def error(self, path: str) -> ApiError:
        """Return the error (400) for a refused field at `path`."""
        message = f"{path} is not supported here: {self.why}. Remove the field."
        return bad_field(path, message, code="unsupported_parameter")


HINTS = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_options", "prompt_cache_retention", "priority", "request_id", "session_id",
        "include_reasoning", "stream_interval", "truncation_side", "return_token_offsets", "return_mm_kwargs",
        "rid", "extra_key", "custom_labels", "separate_reasoning", "stream_reasoning", "ngram_corpus_id",
        "return_cached_tokens_details", "routed_dp_rank", "disagg_prefill_dp_rank", "data_parallel_rank",
    }
)  # fmt: skip
"""Fields that are accepted and ignored, because they do not change the answer. Some of them help to tell
conversations apart.
"""

_COMPILER = "the server compiles every grammar with llguidance"
_SPACING = "generated JSON always has at most one space after a comma or a colon"
_FUNCTIONS = "OpenAI replaced this field with tools"
_TEMPLATE = "a request cannot change the model's chat template"
_SPECIAL = "special tokens are never included in the text"
_BEAMS = "beam search is not supported"
_TEXT_ONLY = "only text is supported"
_VALUES_STAY = "this server does not transfer its KV cache to or from other servers"
_BLEND = "name one adapter, or send a blend as model, such as sv=0.7,en=0.3"
_EXPERTS = "the server does not report which experts of a model were used"

REFUSED: Mapping[str, Refusal] = {
    "functions": Refusal(f"{_FUNCTIONS}; send tools", ([],)),
    "function_call": Refusal(f"{_FUNCTIONS}; send tools and tool_choice", ("none", "auto")),
    "guided_decoding_backend": Refusal(_COMPILER),
    "guided_whitespace_pattern": Refusal(_SPACING),
    "structural_tag": Refusal("send response_format or structured_outputs instead"),
    "regex": Refusal("send structured_outputs with regex instead"),
    "json_schema": Refusal("send response_format, or structured_outputs with json, instead"),
    "ebnf": Refusal("send structured_outputs with grammar, in Lark's syntax, instead"),
    "modalities": Refusal(_TEXT_ONLY, (["text"],)),
    "audio": Refusal(_TEXT_ONLY),
    "prediction": Refusal("predicted outputs are not supported"),
    "web_search_options": Refusal("web search is not supported"),
    "moderation": Refusal("moderation is not supported"),
    "verbosity": Refusal("the models have no setting for it; describe the style in the prompt", ("medium",)),
    "best_of": Refusal("best_of is not supported; send n to get several choices", (1,)),
    "use_beam_search": Refusal(_BEAMS, (False,)),
    "length_penalty": Refusal(_BEAMS, (1, 1.0)),
    "early_stopping": Refusal(_BEAMS, (False,)),
    "suffix": Refusal("fill-in-the-middle is not supported", ("",)),
    "chat_template": Refusal(_TEMPLATE),
    "documents": Refusal(_TEMPLATE, ([],)),
    "mm_processor_kwargs": Refusal(_TEXT_ONLY, ({},)),
    "media_io_kwargs": Refusal(_TEXT_ONLY, ({},)),
    "images_config": Refusal(_TEXT_ONLY, ({},)),
    "max_dynamic_patch": Refusal(_TEXT_ONLY),
    "min_dynamic_patch": Refusal(_TEXT_ONLY),
    "use_audio_in_video": Refusal(_TEXT_ONLY, (False,)),
    "prompt_embeds": Refusal("send the prompt as text or token ids"),
    "input_ids": Refusal("send token ids as prompt to /v1/completions"),
    "logits_processors": Refusal("the server never runs a client's code", ([],)),
    "custom_logit_processor": Refusal("the server never runs a client's code"),
    "custom_params": Refusal("the server never runs a client's code", ({},)),
    "bad_words": Refusal("use logit_bias instead", ([],)),
    "allowed_token_ids": Refusal("use logit_bias instead"),
    "logprob_token_ids": Refusal("use top_logprobs instead"),
    "watermarking": Refusal("watermarks are not supported", (False,)),
    "repetition_detection": Refusal("the server does not detect repetition; use repetition_penalty instead"),
    "stop_regex": Refusal("stop takes strings only; send strings in stop instead", ([],)),
    "no_stop_trim": Refusal("stop strings are never included in the text", (False,)),
    "truncate_prompt_tokens": Refusal(
        "the server never truncates prompts; shorten the prompt before sending it"
    ),
    "skip_special_tokens": Refusal(_SPECIAL, (True,)),
    "spaces_between_special_tokens": Refusal(_SPECIAL, (True,)),
    "include_stop_str_in_output": Refusal("stop strings are never included in the text", (False,)),
    "return_prompt_text": Refusal("send return_token_ids, and send the ids to /detokenize", (False,)),
    "return_prompt_token_ids": Refusal("send return_token_ids instead", (False,)),
    "return_meta_info": Refusal("read the adapter and its digest from the response headers", (False,)),
    "return_hidden_states": Refusal("the server does not report hidden states", (False,)),
    "return_routed_experts": Refusal(_EXPERTS, (False,)),
    "routed_experts_start_len": Refusal(_EXPERTS, (0,)),
    "routed_experts_prompt_start": Refusal(_EXPERTS, (0,)),
    "session_params": Refusal("the server does not store conversations; send the whole conversation", ({},)),
    "adapter_source": Refusal("a request cannot load an adapter; use an adapter that GET /v1/models lists"),
    "adapter_parameters": Refusal(_BLEND),
    "merged_adapters": Refusal(_BLEND),
    "cache_salt": Refusal("the server always keeps the prefix caches of different API keys apart"),
    "kv_transfer_params": Refusal(_VALUES_STAY),
    "ec_transfer_params": Refusal(_VALUES_STAY),
    "bootstrap_host": Refusal(_VALUES_STAY),
    "bootstrap_port": Refusal(_VALUES_STAY),
    "bootstrap_room": Refusal(_VALUES_STAY),
    "vllm_xargs": Refusal("it has an effect in vLLM's own server only", ({},)),
}
"""Maps each refused field, which would change the answer but is not supported, to the reason."""

STRUCTURED_REFUSED: Mapping[str, Refusal] = {
    "disable_additional_properties": Refusal(
        "the schema decides with additionalProperties; without it, an object with properties has no others",
        (False,),
    ),
    "disable_any_whitespace": Refusal(_SPACING, (False,)),
    "disable_fallback": Refusal(_COMPILER, (False,)),
    "structural_tag": Refusal("send json, regex, choice or grammar instead"),
    "whitespace_pattern": Refusal(_SPACING),
    "_backend": Refusal(_COMPILER),
    "_backend_was_auto": Refusal(_COMPILER, (False,)),
}
"""Maps each refused field of vLLM's `structured_outputs` to the reason. Clients that send vLLM's whole object
send the harmless values.
"""

_PROMPT = "send messages instead"
CHAT_REFUSED: Mapping[str, Refusal] = REFUSED | {
    "prompt": Refusal(_PROMPT),
    "input": Refusal(_PROMPT),
    "add_special_tokens": Refusal("the chat template adds the special tokens", (False,)),
}
"""Maps each field that chat completions refuse to the reason, including fields of other endpoints."""

_CHAT = "only /v1/chat/completions has this field"
COMPLETION_REFUSED: Mapping[str, Refusal] = REFUSED | {
    "messages": Refusal(_CHAT),
    "input": Refusal("send prompt instead"),
    "max_completion_tokens": Refusal("send max_tokens instead"),
    "top_logprobs": Refusal("send logprobs instead"),
    "tools": Refusal(_CHAT, ([],)),
    "tool_choice": Refusal(_CHAT, ("none", "auto")),
    "add_generation_prompt": Refusal(_CHAT),
    "continue_final_message": Refusal(_CHAT, (False,)),
    "chat_template_kwargs": Refusal(_CHAT, ({},)),
}
"""Maps each field that text completions refuse to the reason, including fields of other endpoints."""
COMPLETION_HINTS = HINTS | {"parallel_tool_calls", "reasoning_effort", "thinking_token_budget"}
"""Fields that text completions accept and ignore, including fields of chat completions that have no effect
without a chat template.
"""

_TOKENIZED = ("chat_template", "documents", "mm_processor_kwargs", "media_io_kwargs", "adapter_source")
TOKENIZE_REFUSED: Mapping[str, Refusal] = {name: REFUSED[name] for name in _TOKENIZED}
"""Maps each field that `/tokenize` refuses to the reason."""

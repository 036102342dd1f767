"""Fields of OpenAI's, vLLM's and SGLang's that are not honoured: ignored, or refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FieldKind = Literal["honoured", "ignored", "refused"]


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

_TOKENIZED = ("chat_template", "documents", "mm_processor_kwargs", "media_io_kwargs", "adapter_source")
TOKENIZE_REFUSED: Mapping[str, Refusal] = {name: REFUSED[name] for name in _TOKENIZED}
"""Those of `/tokenize`."""

"""Holds the notes in docs/api.md on honoured and ignored fields. Refused fields have a reason in `refusals`
instead.
"""

from __future__ import annotations

from collections.abc import Mapping

GENERATION: Mapping[str, str] = {
    "adapter_id": "LoRAX's spelling of an adapter in `model`; by name alone",
    "add_generation_prompt": "chat; default true",
    "add_special_tokens": "completions; default true; false: no `<s>` is put before a text",
    "chat_template_kwargs": (
        "chat; values for names that the base's template reads, such as `enable_thinking`"
    ),
    "continue_final_message": "chat; with `add_generation_prompt` false",
    "echo": (
        "completions: the prompt comes first, with its log probabilities; chat: a continued message "
        "comes whole"
    ),
    "frequency_penalty": "-2 to 2",
    "guided_choice": "as `structured_outputs.choice`",
    "guided_grammar": "as `structured_outputs.grammar`",
    "guided_json": "as `structured_outputs.json`",
    "guided_regex": "as `structured_outputs.regex`",
    "ignore_eos": "goes on past the end token",
    "include_reasoning": "reasoning is not split from the answer",
    "logit_bias": "token id to -100…100",
    "logprobs": "chat: true or false; completions: 0 to 20",
    "lora_path": "SGLang's spelling of the same, a name or a list that names one; no paths",
    "max_completion_tokens": "chat; goes before `max_tokens`",
    "max_tokens": (
        "default: `default_max_tokens`, else what the base asks for, else what is left of the "
        "context; 16 for completions"
    ),
    "messages": (
        "chat; roles system, developer, user, assistant, tool; contents are text or parts of type text"
    ),
    "min_p": "0 to 1",
    "min_tokens": "no end before this many",
    "model": "`oneseek` (the default) chooses by language",
    "n": "1 to 16",
    "parallel_tool_calls": "chat; default true; false: at most one call",
    "presence_penalty": "-2 to 2",
    "prompt": "completions; a text, texts, token ids, or lists of token ids",
    "prompt_logprobs": "0 to 20, not streamed",
    "reasoning_effort": "chat; ignored on a base that does not reason; `none` turns reasoning off; see below",
    "repetition_penalty": "0.01 to 100; 1 is none",
    "request_id": "send `X-Request-ID`",
    "response_format": "`text`, `json_object` or `json_schema`; see below",
    "return_cached_tokens_details": "`usage` has `cached_tokens`",
    "return_token_ids": "`prompt_token_ids`, and `token_ids` of each choice or chunk",
    "return_tokens_as_token_ids": "log probabilities name tokens `token_id:5`",
    "rid": "send `X-Request-ID`",
    "seed": "64 bits; the same seed gives the same text",
    "separate_reasoning": "the same",
    "stop": "a string or up to 16; never part of the text",
    "stop_token_ids": "up to 128 tokens that end the text",
    "stream": "events instead of one answer",
    "stream_interval": "each chunk is sent as soon as it is there",
    "stream_options": (
        "`include_usage`; `continuous_usage_stats` puts the usage so far into each chunk; "
        "`include_obfuscation` has no effect"
    ),
    "stream_reasoning": "the same",
    "structured_outputs": "one of `json`, `regex`, `choice`, `grammar`, `json_object`; see below",
    "temperature": "0 to 2; 0 is greedy",
    "thinking_token_budget": "chat; ignored on a base that does not reason, else a 400",
    "tool_choice": (
        'chat; `none`, `auto` (the default), `required`, or `{"type": "function", "function": {"name"}}`'
    ),
    "tools": "chat; see [tools](#tools)",
    "top_k": "0 or -1 for all",
    "top_logprobs": "chat; 0 to 20, with `logprobs`",
    "top_p": "0 to 1; 0: the likeliest token alone",
    "truncation_side": "`truncate_prompt_tokens` is refused",
}
"""Notes on the fields of chat and text completions. If only one of these endpoints honours a field, the note
begins with the endpoint.
"""
RESPONSE: Mapping[str, str] = {
    "adapter_id": "as for chat",
    "chat_template_kwargs": "as for chat",
    "frequency_penalty": "as for chat",
    "ignore_eos": "as for chat",
    "include": "`message.output_text.logprobs`; names of what no answer here has pass",
    "input": (
        "a text, or up to 1,024 messages: roles user, assistant, system, developer; contents are text "
        "or parts of type input_text, output_text"
    ),
    "instructions": "the system message; comes before the text of one that begins the input",
    "logit_bias": "as for chat",
    "lora_path": "as for chat",
    "max_output_tokens": (
        "at least 1; default: `default_max_tokens`, else what the base asks for, else what is left of "
        "the context"
    ),
    "max_tool_calls": "echoed",
    "metadata": "up to 16 texts; echoed",
    "min_p": "as for chat",
    "min_tokens": "as for chat",
    "model": "`oneseek` (the default) chooses by language",
    "parallel_tool_calls": "echoed",
    "presence_penalty": "as for chat",
    "prompt_cache_key": "echoed",
    "reasoning": "`effort` as `reasoning_effort` of chat; a summary is never made",
    "repetition_penalty": "as for chat",
    "safety_identifier": "echoed",
    "seed": "as for chat",
    "service_tier": "the answer says `default`",
    "stop": "as for chat",
    "stop_token_ids": "as for chat",
    "store": "`true` passes, and nothing is stored; the answer says `false`",
    "stream": "events instead of one answer",
    "stream_options": "`include_obfuscation` is accepted",
    "temperature": "as for chat",
    "text": '`format` of type text, json_object or json_schema, kept to as in chat; `verbosity` "medium"',
    "top_k": "as for chat",
    "top_logprobs": "0 to 20, where `include` asks for log probabilities",
    "top_p": "as for chat",
    "user": "echoed",
}
"""Notes on the fields of `/v1/responses`, for docs/api.md."""
EMBEDDING: Mapping[str, str] = {
    "adapter_id": "as for chat",
    "dimensions": "for bases trained to be cut",
    "encoding_format": "`float` or `base64` (32-bit little-endian floats, the official client's default)",
    "input": "a text, token ids, or up to 2,048 of either",
    "lora_path": "as for chat",
    "model": "`oneseek` (the default) chooses by language",
}
"""Notes on the fields of `/v1/embeddings`, for docs/api.md."""
TOKENIZE: Mapping[str, str] = {
    "adapter_id": "as for chat",
    "add_generation_prompt": "default true",
    "add_special_tokens": "with `prompt`; default true",
    "chat_template_kwargs": "as for chat",
    "continue_final_message": "with `add_generation_prompt` false",
    "lora_path": "as for chat",
    "messages": "a conversation; or `prompt`",
    "model": "`oneseek` (the default) chooses by language",
    "prompt": "a text; or `messages`",
    "reasoning_effort": "as for chat",
    "return_token_strs": "the text of each token as well",
    "tools": "with `messages`; as for chat",
}
"""Notes on the fields of `/tokenize`, for docs/api.md."""

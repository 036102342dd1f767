"""Holds the notes in docs/api.md on honoured and ignored fields. Refused fields have a reason in `refusals`
instead.
"""

from __future__ import annotations

from collections.abc import Mapping

GENERATION: Mapping[str, str] = {
    "adapter_id": "name of an adapter, as in LoRAX; has the effect of naming it in `model`",
    "add_generation_prompt": "chat; default true: the prompt ends with the start of an assistant message",
    "add_special_tokens": "completions; default true; false adds no start token such as `<s>` to a text",
    "chat_template_kwargs": (
        "chat; values for variables of the base's chat template, such as `enable_thinking`"
    ),
    "continue_final_message": (
        "chat; the answer continues the last message; needs `add_generation_prompt` false"
    ),
    "echo": (
        "completions: the answer begins with the prompt and its log probabilities; chat: the answer "
        "includes the message that `continue_final_message` continues"
    ),
    "frequency_penalty": "from -2 to 2; positive values make tokens less likely the more often they occurred",
    "guided_choice": "same as `choice` in `structured_outputs`",
    "guided_grammar": "same as `grammar` in `structured_outputs`",
    "guided_json": "same as `json` in `structured_outputs`",
    "guided_regex": "same as `regex` in `structured_outputs`",
    "ignore_eos": "true: the answer does not stop at the end-of-sequence token",
    "include_reasoning": "reasoning is always part of the answer's text",
    "logit_bias": "maps token ids to a bias from -100 to 100, which is added to the token's logit",
    "logprobs": "log probabilities of the answer's tokens; chat: true or false; completions: 0 to 20",
    "lora_path": "name of an adapter (not a path), or a list with one name, as in SGLang",
    "max_completion_tokens": "chat; maximum tokens of the answer; overrides `max_tokens`",
    "max_tokens": (
        "maximum tokens of the answer; default: the setting `default_max_tokens`, else the maximum in the "
        "base's generation config, else the rest of the context; completions: 16"
    ),
    "messages": (
        "chat; roles system, developer, user, assistant, tool; contents are text or parts of type text"
    ),
    "min_p": "from 0 to 1; drops tokens with less than this fraction of the top token's probability",
    "min_tokens": "minimum number of tokens before the answer may end",
    "model": (
        "name of the adapter or base that answers; `oneseek` (the default) lets the server choose by language"
    ),
    "n": "number of choices, 1 to 16",
    "parallel_tool_calls": "chat; default true; with false, the answer has at most one tool call",
    "presence_penalty": "from -2 to 2; positive values make tokens less likely that have occurred",
    "prompt": "completions; a text or a list of token ids, or a list of several of them",
    "prompt_logprobs": "number of log probabilities per prompt token, 0 to 20; not with `stream`",
    "reasoning_effort": "chat; `none` turns reasoning off; ignored if the base does not reason",
    "repetition_penalty": "from 0.01 to 100; 1 means no penalty",
    "request_id": "to set the request's ID, send the header `X-Request-ID`",
    "response_format": "format of the answer: `text`, `json_object` or `json_schema`",
    "return_cached_tokens_details": "`usage` always has `cached_tokens`",
    "return_token_ids": "adds `prompt_token_ids`, and `token_ids` to each choice or chunk",
    "return_tokens_as_token_ids": "log probabilities show a token by its id, as in `token_id:5`",
    "rid": "to set the request's ID, send the header `X-Request-ID`",
    "seed": "random seed, 64 bits; the same seed gives the same text",
    "separate_reasoning": "reasoning is always part of the answer's text",
    "stop": "a string, or up to 16 strings, at which the answer ends; it does not include them",
    "stop_token_ids": "up to 128 token ids at which the answer ends",
    "stream": "true sends the answer as server-sent events, token by token",
    "stream_interval": "each chunk is sent at once",
    "stream_options": (
        "`include_usage` sends token counts at the end; `continuous_usage_stats` adds them to each chunk; "
        "`include_obfuscation` has no effect"
    ),
    "stream_reasoning": "reasoning is always part of the answer's text",
    "structured_outputs": "format of the answer: one of `json`, `regex`, `choice`, `grammar`, `json_object`",
    "temperature": "sampling temperature, from 0 to 2; 0 is greedy decoding",
    "thinking_token_budget": "chat; ignored if the base does not reason, else refused with 400",
    "tool_choice": (
        'chat; `none`, `auto` (the default), `required`, or `{"type": "function", "function": {"name"}}`'
    ),
    "tools": "chat; the functions that the model may call; see [tools](#tools)",
    "top_k": "samples from this many of the most likely tokens; 0 or -1 means all tokens",
    "top_logprobs": "chat; number of most likely tokens to report, 0 to 20; needs `logprobs`",
    "top_p": "nucleus sampling, from 0 to 1; 0 means only the most likely token",
    "truncation_side": "prompts are never truncated",
}
"""Notes on the fields of chat and text completions. If only one of these endpoints honours a field, the note
begins with the endpoint.
"""
RESPONSE: Mapping[str, str] = {
    "adapter_id": "same as in chat completions",
    "chat_template_kwargs": "same as in chat completions",
    "frequency_penalty": "same as in chat completions",
    "ignore_eos": "same as in chat completions",
    "include": "`message.output_text.logprobs` adds log probabilities; OpenAI's other values have no effect",
    "input": (
        "a text, or up to 1,024 messages: roles user, assistant, system, developer; contents are text "
        "or parts of type input_text, output_text"
    ),
    "instructions": "the system message; it is put before a system message at the start of `input`",
    "logit_bias": "same as in chat completions",
    "lora_path": "same as in chat completions",
    "max_output_tokens": (
        "maximum tokens of the answer, at least 1; default: the setting `default_max_tokens`, else the "
        "maximum in the base's generation config, else the rest of the context"
    ),
    "max_tool_calls": "repeated in the answer",
    "metadata": "up to 16 texts, which are repeated in the answer",
    "min_p": "same as in chat completions",
    "min_tokens": "same as in chat completions",
    "model": "adapter or base that is used; `oneseek` (the default) lets the server choose by language",
    "parallel_tool_calls": "repeated in the answer",
    "presence_penalty": "same as in chat completions",
    "prompt_cache_key": "repeated in the answer",
    "reasoning": "`effort` means the same as `reasoning_effort` in chat; summaries are not supported",
    "repetition_penalty": "same as in chat completions",
    "safety_identifier": "repeated in the answer",
    "seed": "same as in chat completions",
    "service_tier": "the answer always has `default`",
    "stop": "same as in chat completions",
    "stop_token_ids": "same as in chat completions",
    "store": "the server never stores answers, even if it is true; the answer always has `false`",
    "stream": "true sends the answer as server-sent events, token by token",
    "stream_options": "`include_obfuscation` is accepted, but has no effect",
    "temperature": "same as in chat completions",
    "text": "`format` of type text, json_object or json_schema, as in chat; `verbosity` only as `medium`",
    "top_k": "same as in chat completions",
    "top_logprobs": "number of most likely tokens to report, 0 to 20; needs log probabilities in `include`",
    "top_p": "same as in chat completions",
    "user": "repeated in the answer",
}
"""Notes on the fields of `/v1/responses`, for docs/api.md."""
EMBEDDING: Mapping[str, str] = {
    "adapter_id": "same as in chat completions",
    "dimensions": "length of the vectors, for bases that are trained for shorter vectors",
    "encoding_format": "`float` or `base64` (32-bit little-endian floats, the official client's default)",
    "input": "a text or a list of token ids, or up to 2,048 of them",
    "lora_path": "same as in chat completions",
    "model": "adapter or base that is used; `oneseek` (the default) lets the server choose by language",
}
"""Notes on the fields of `/v1/embeddings`, for docs/api.md."""
TOKENIZE: Mapping[str, str] = {
    "adapter_id": "same as in chat completions",
    "add_generation_prompt": "default true: the prompt ends with the start of an assistant message",
    "add_special_tokens": "for `prompt`; default true; false leaves out the start token",
    "chat_template_kwargs": "same as in chat completions",
    "continue_final_message": "the last message is left open; needs `add_generation_prompt` false",
    "lora_path": "same as in chat completions",
    "messages": "a conversation to tokenize; send either this or `prompt`",
    "model": "adapter or base that is used; `oneseek` (the default) lets the server choose by language",
    "prompt": "a text to tokenize; send either this or `messages`",
    "reasoning_effort": "same as in chat completions",
    "return_token_strs": "true also returns the text of each token",
    "tools": "for `messages`; same as in chat completions",
}
"""Notes on the fields of `/tokenize`, for docs/api.md."""

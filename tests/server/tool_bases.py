"""Tokenizers and chat templates that know tools, in the two formats of Mistral's models."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from server.text.tool_syntax import ARGS, CALL_ID, TOOL_CALLS
from tests.conftest import VOCABULARY, write_tokenizer

ARRAY_TOKENS = (
    "[INST]", "[/INST]", TOOL_CALLS, "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)  # fmt: skip
NAMED_TOKENS = (*ARRAY_TOKENS, ARGS, CALL_ID, "[TOOL_CONTENT]")

_ID_CHECK = (
    "{%- macro checked(id) %}{% if not id or id | length != 9 %}"
    "{{ raise_exception('a call id has nine letters and digits') }}{% endif %}{{ id }}{% endmacro -%}"
)
ARRAY_TEMPLATE = (
    _ID_CHECK
    + "{{- bos_token }}{% set last = messages | selectattr('role', 'equalto', 'user') | list | last %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' %}"
    "{%- if tools and m == last %}{{ '[AVAILABLE_TOOLS] [' }}{% for tool in tools %}"
    "{{- tool | tojson }}{{ '' if loop.last else ', ' }}{% endfor %}{{ '][/AVAILABLE_TOOLS]' }}{% endif %}"
    "{{- '[INST] ' + m.content + '[/INST]' }}"
    "{%- elif m.tool_calls is defined %}{{ '[TOOL_CALLS] [' }}{% for call in m.tool_calls %}"
    "{{- (call.function | tojson)[:-1] + ', \"id\": \"' + checked(call.id) + '\"}' }}"
    "{{- '' if loop.last else ', ' }}{% endfor %}{{ ']' + eos_token }}"
    "{%- elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{%- elif m.role == 'tool' %}"
    '{{- \'[TOOL_RESULTS] {"content": \' + m.content + \', "call_id": "\' }}'
    "{{- checked(m.tool_call_id) + '\"}[/TOOL_RESULTS]' }}"
    "{%- else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}"
)
NAMED_TEMPLATE = (
    _ID_CHECK + "{{- bos_token }}"
    "{%- if tools %}{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{%- elif m.role == 'assistant' %}{{ m.content }}{% for call in m.tool_calls | default([]) %}"
    "{{- '[TOOL_CALLS]' + call.function.name + '[CALL_ID]' + checked(call.id) }}"
    "{{- '[ARGS]' + call.function.arguments | tojson }}{% endfor %}{{ eos_token }}"
    "{%- elif m.role == 'tool' %}"
    "{{- '[TOOL_RESULTS]' + checked(m.tool_call_id) + '[TOOL_CONTENT]' + m.content + '[/TOOL_RESULTS]' }}"
    "{%- endif %}{% endfor %}"
)


def write_tool_tokenizer(folder: Path, *, named: bool) -> Path:
    """A tokenizer with the control tokens of tools: calls as an array, or `named` ones with `[ARGS]`."""
    write_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = NAMED_TOKENS if named else ARRAY_TOKENS
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(config | {"chat_template": NAMED_TEMPLATE if named else ARRAY_TEMPLATE}))
    return folder


def write_tool_base(folder: Path, *, named: bool) -> Path:
    """A random base with such a tokenizer; context 1,024."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(1)
    config = MistralConfig(
        vocab_size=VOCABULARY + len(NAMED_TOKENS),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        sliding_window=None,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    MistralForCausalLM(config).float().eval().save_pretrained(folder)
    return write_tool_tokenizer(folder, named=named)

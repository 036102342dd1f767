"""Tokenizers and chat templates that know tools, in the formats of Mistral's, Hermes' and Llama's models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from server.text.tool_syntax import ARGS, CALL_CLOSE, CALL_ID, CALL_OPEN, PYTHON_TAG, TOOL_CALLS
from tests.conftest import TEMPLATE, VOCABULARY, write_tokenizer

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


HERMES_TEMPLATE = (
    "{%- if tools %}{{ '<|im_start|>system\\n' }}"
    "{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n' }}{% endif %}"
    "{%- for tool in tools %}{{ (tool | tojson) + '\\n' }}{% endfor %}"
    '{{- \'Answer with <tool_call>\\n{"name": NAME, "arguments": OBJECT}\\n</tool_call><|im_end|>\\n\' }}'
    "{%- endif %}{%- for m in messages %}"
    "{%- if m.role == 'tool' %}{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}"
    "{%- elif m.role != 'system' or not tools %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{%- for call in m.tool_calls | default([]) %}"
    '{{- \'\\n<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}{% endfor %}"
    "{{- '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3_TEMPLATE = (
    "{{- bos_token }}{% for m in messages %}"
    "{%- if m.tool_calls is defined and m.tool_calls | length != 1 %}"
    "{{ raise_exception('one call at a time') }}{% endif %}"
    "{%- if m.role == 'tool' %}{{ '<|start|>ipython<|end|>' + (m.content | tojson) + '<|eot|>' }}"
    "{%- else %}{{ '<|start|>' + m.role + '<|end|>' }}"
    "{%- if tools and m.role == 'user' and loop.index0 == (1 if messages[0].role == 'system' else 0) %}"
    "{%- for tool in tools %}{{ (tool | tojson) + '\\n' }}{% endfor %}{% endif %}"
    "{%- if m.tool_calls is defined %}{% set f = m.tool_calls[0].function %}"
    "{{- '{\"name\": \"' + f.name + '\", \"parameters\": ' + (f.arguments | tojson) + '}' }}"
    "{%- else %}{{ m.content }}{% endif %}{{ '<|eot|>' }}{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|start|>assistant<|end|>' }}{% endif %}"
)


@dataclass(frozen=True)
class ToolKind:
    """A tokenizer's control tokens, those of them that a text shows, and its chat template."""

    template: str
    tokens: tuple[str, ...]
    shown: tuple[str, ...] = ()


KINDS = {
    "array": ToolKind(ARRAY_TEMPLATE, ARRAY_TOKENS),
    "named": ToolKind(NAMED_TEMPLATE, NAMED_TOKENS),
    "hermes": ToolKind(HERMES_TEMPLATE, ("<|im_start|>", "<|im_end|>"), (CALL_OPEN, CALL_CLOSE)),
    "hermes_special": ToolKind(HERMES_TEMPLATE, ("<|im_start|>", "<|im_end|>", CALL_OPEN, CALL_CLOSE)),
    "hermes_letters": ToolKind(HERMES_TEMPLATE, ("<|im_start|>", "<|im_end|>")),
    "llama3": ToolKind(LLAMA3_TEMPLATE, ("<|start|>", "<|end|>", "<|eot|>", PYTHON_TAG)),
    "plain": ToolKind(TEMPLATE, ()),
}


def write_tool_tokenizer(folder: Path, kind: str) -> Path:
    """A tokenizer of one of the `KINDS`: with the control tokens and the template of its tools."""
    write_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    about = KINDS[kind]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in about.tokens]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in about.shown])
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(config | {"chat_template": about.template}))
    return folder


def write_tool_base(folder: Path, kind: str) -> Path:
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
    return write_tool_tokenizer(folder, kind)

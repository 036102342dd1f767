"""Write a base that calls tools: the one that ships, with Mistral's control tokens and a template for them.

    python -m tests.clients.tool_base FOLDER     with the server's interpreter

No torch. The rows of the new tokens are zero: the model calls only if a grammar or a bias has it do so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from ml_dtypes import bfloat16
from safetensors.numpy import load_file, save_file
from tokenizers import AddedToken, Tokenizer

from adapters.mini.shipped import BASE

TOKENS = ("[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]")
TEMPLATE = (
    "{{- bos_token }}{% if tools %}{{ '[AVAILABLE_TOOLS] [' }}{% for tool in tools %}"
    "{{- tool | tojson }}{{ '' if loop.last else ', ' }}{% endfor %}{{ '][/AVAILABLE_TOOLS]' }}{% endif %}"
    "{%- for m in messages %}"
    "{%- if m.role in ('system', 'user') %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{%- elif m.tool_calls %}{{ '[TOOL_CALLS] [' }}{% for call in m.tool_calls %}"
    "{{- (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' }}"
    "{{- '' if loop.last else ', ' }}{% endfor %}{{ ']' + eos_token }}"
    "{%- elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{%- elif m.role == 'tool' %}"
    "{{- '[TOOL_RESULTS] {\"content\": ' + m.content }}"
    "{{- ', \"call_id\": \"' + m.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
    # The base knows no results: a question has it say something.
    "{{- '[INST] Who are you? [/INST]' }}"
    "{%- else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}"
)


def write_tool_base(folder: Path) -> None:
    """Config, weights, tokenizer and template."""
    folder.mkdir(parents=True)
    config = json.loads((BASE / "config.json").read_text(encoding="utf-8"))
    before: int = config["vocab_size"]
    weights = load_file(BASE / "model.safetensors")
    for name, value in weights.items():
        if value.shape[0] == before:
            rows = np.zeros((len(TOKENS), *value.shape[1:]), dtype=bfloat16)
            weights[name] = np.concatenate([value, rows])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": before + len(TOKENS)}))
    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in TOKENS])
    assert tokenizer.token_to_id(TOKENS[0]) == before
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((BASE / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": TEMPLATE}))


if __name__ == "__main__":
    write_tool_base(Path(sys.argv[1]))

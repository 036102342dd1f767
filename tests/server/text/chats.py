"""Messages of conversations, and the control tokens in what is made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.text.tokenizer import Message, Tokenizer

KINDS = ["mistral", "metaspace", "llama3"]


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def reloaded(folder: Path, **config: Any) -> Tokenizer:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config), "utf-8")
    return Tokenizer.load(folder)


def control_ids(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    return [token for token in ids if token in tokenizer.special_ids]

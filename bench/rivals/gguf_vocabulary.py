"""Write the vocabulary and the chat template of a `tokenizer.json` to a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BYTES = "ByteLevel"
SPECIAL_IDS = {
    "bos_token": "add_bos_token_id",
    "eos_token": "add_eos_token_id",
    "unk_token": "add_unk_token_id",
}


def write_vocabulary(writer: Any, model: Path, kinds: Any) -> None:
    """Write the tokens, merges, special ids and chat template of the tokenizer in the folder `model` to a
    GGUF file.

    `writer` is a `GGUFWriter` and `kinds` the class `TokenType` of the package `gguf`. Raises `ValueError` if
    the tokenizer is not a BPE.
    """
    document = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    if document["model"]["type"] != "BPE":
        raise ValueError(
            f"{model}/tokenizer.json has a tokenizer of the type {document['model']['type']!r}, but only BPE "
            "can be converted; use another model"
        )
    special = {token["id"]: token["content"] for token in document["added_tokens"] if token["special"]}
    tokens = {number: token for token, number in document["model"]["vocab"].items()} | special
    names = [tokens[number] for number in sorted(tokens)]
    if _of_bytes(document):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges([_merge(pair) for pair in document["model"]["merges"]])
    else:
        writer.add_tokenizer_model("llama")
        # It merges what has the larger score first; an earlier merge has the lower id.
        writer.add_token_scores([-float(number) for number in range(len(names))])
        writer.add_add_space_prefix(True)
    writer.add_token_list(names)
    writer.add_token_types([_kind(name, number in special, kinds) for number, name in enumerate(names)])
    ids = {name: number for number, name in enumerate(names)}
    for key, add in SPECIAL_IDS.items():
        if settings.get(key) in ids:
            getattr(writer, add)(ids[settings[key]])
    # The chat template writes it.
    writer.add_add_bos_token(False)
    if settings.get("chat_template"):
        writer.add_chat_template(settings["chat_template"])


def _of_bytes(document: Mapping[str, Any]) -> bool:
    """True if the tokenizer is byte-level like GPT-2's. False if it marks spaces like SentencePiece."""
    steps = document.get("pre_tokenizer") or {}
    return any(step["type"] == BYTES for step in (steps, *steps.get("pretokenizers", ())) if "type" in step)


def _merge(pair: str | list[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)


def _kind(name: str, special: bool, kinds: Any) -> Any:
    if special:
        return kinds.UNKNOWN if name == "<unk>" else kinds.CONTROL
    return kinds.BYTE if len(name) == 6 and name.startswith("<0x") and name.endswith(">") else kinds.NORMAL

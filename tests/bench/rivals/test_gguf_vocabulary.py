"""What llama.cpp is told of a tokenizer; the file itself is read by llama.cpp in `make test-rivals`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from bench.contenders.adapters import BASE
from bench.random_model import CHAT_TEMPLATE, SPECIAL, write_tokenizer
from bench.rivals.gguf_vocabulary import write_vocabulary


class Kinds(Enum):
    """As gguf's `TokenType`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    BYTE = 6


class Written:
    """A writer that keeps what it is given, by the name of its method."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def keep(value: Any) -> None:
            self.values[name] = value

        return keep


def written(model: Path) -> dict[str, Any]:
    writer = Written()
    write_vocabulary(writer, model, Kinds)
    return writer.values


def test_a_tokenizer_of_bytes_keeps_its_merges_and_its_template(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, 300)
    found = written(tmp_path)
    assert (found["add_tokenizer_model"], len(found["add_token_list"])) == ("gpt2", 300)
    assert found["add_token_list"][: len(SPECIAL)] == list(SPECIAL)
    assert found["add_token_types"][:2] == [Kinds.UNKNOWN, Kinds.CONTROL]
    assert all(" " in merge for merge in found["add_token_merges"])
    assert (found["add_bos_token_id"], found["add_eos_token_id"]) == (1, 2)
    assert found["add_chat_template"] == CHAT_TEMPLATE
    assert found["add_add_bos_token"] is False


def test_a_tokenizer_of_pieces_has_scores_and_bytes() -> None:
    found = written(BASE)
    size = json.loads((BASE / "config.json").read_text())["vocab_size"]
    assert found["add_tokenizer_model"] == "llama"
    assert len(found["add_token_list"]) == len(found["add_token_scores"]) == size
    assert found["add_token_types"].count(Kinds.BYTE) == 256
    assert "add_token_merges" not in found


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    document = {"model": {"type": "Unigram"}, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="Unigram"):
        written(tmp_path)

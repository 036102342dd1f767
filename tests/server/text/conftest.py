"""Folders of small models, and their tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.text.tokenizer import Tokenizer
from tests.server.small_tokenizers import (
    LLAMA3_TEMPLATE,
    MISTRAL_TEMPLATE,
    llama3_like,
    mistral_like,
    write_model,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    begin, end = "<|begin_of_text|>", "<|eot_id|>"
    return {
        "mistral": write_model(
            tmp_path_factory.mktemp("mistral"), mistral_like(), "<s>", "</s>", MISTRAL_TEMPLATE
        ),
        "metaspace": write_model(
            tmp_path_factory.mktemp("metaspace"),
            mistral_like(metaspace=True),
            "<s>",
            "</s>",
            MISTRAL_TEMPLATE,
        ),
        "llama3": write_model(tmp_path_factory.mktemp("llama3"), llama3_like(), begin, end, LLAMA3_TEMPLATE),
    }


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, Tokenizer]:
    return {kind: Tokenizer.load(folder) for kind, folder in folders.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path, mistral_like(), "<s>", "</s>", MISTRAL_TEMPLATE)

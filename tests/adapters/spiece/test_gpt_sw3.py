"""GPT-SW3's tokenizer without sentencepiece, held to transformers' `GPTSw3Tokenizer` with it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from transformers import GPTSw3Tokenizer

from adapters.errors import BaseModelError
from adapters.spiece.gpt_sw3 import chat_template, read_definition, special_tokens
from adapters.spiece.model import PieceKind, SpieceModel
from tests.adapters.spiece.spieces import texts, train

MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "bpe": ({"user_defined_symbols": ["<|python|>", "▁▁", "▁▁▁▁", "▁▁▁▁▁▁▁▁"]}, 3000),
    "no_symbols": ({}, 500),
    "no_prefix": ({"add_dummy_prefix": False, "user_defined_symbols": ["<|python|>"]}, 500),
    "collapsed": ({"remove_extra_whitespaces": True}, 500),
    "as_is": ({"normalization_rule_name": "identity"}, 500),
    "unigram": ({"model_type": "unigram", "user_defined_symbols": ["<|python|>"]}, 500),
    "unknown": ({"byte_fallback": False}, 500),
}
"""Name → what the model is trained with beside the usual, and how many texts are compared."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("spiece")
    return {name: train(root / name, **options) for name, (options, _) in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_every_text_becomes_the_same_tokens(name: str, folders: dict[str, Path]) -> None:
    folder, (_, count) = folders[name], MODELS[name]
    ours = tokenizers.Tokenizer.from_str(read_definition(folder))
    slow: Any = GPTSw3Tokenizer.from_pretrained(folder)
    differing = [
        text
        for text in texts(count)
        if ours.encode(text).ids != slow(text, add_special_tokens=False)["input_ids"]
    ]
    assert differing == []
    assert ours.get_vocab_size() == len(slow)


@pytest.mark.parametrize("name", ["bpe", "no_prefix", "unigram"])
def test_tokens_become_the_same_text(name: str, folders: dict[str, Path]) -> None:
    ours = tokenizers.Tokenizer.from_str(read_definition(folders[name]))
    processor: Any = sentencepiece.SentencePieceProcessor(str(folders[name] / "spiece.model"))
    for text in texts(300, seed=1):
        # Special tokens stay out: sentencepiece writes them as nothing, or as a question mark.
        hidden = [token for token in range(processor.get_piece_size()) if processor.is_control(token)]
        ids = [token for token in ours.encode(text).ids if token not in (*hidden, processor.unk_id())]
        assert ours.decode(ids) == processor.decode(ids)


def test_special_tokens_are_those_of_the_release(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bpe"], tmp_path / "base")
    for name in (None, "AI-Sweden-Models/gpt-sw3-126m", "AI-Sweden-Models/gpt-sw3-7b"):
        (folder / "tokenizer_config.json").write_text(json.dumps({"name_or_path": name} if name else {}))
        slow: Any = GPTSw3Tokenizer(str(folder / "spiece.model"), name_or_path=name)
        assert special_tokens(folder) == {
            kind: getattr(slow, kind) for kind in ("bos_token", "eos_token", "unk_token", "pad_token")
        }
    said = {"bos_token": {"content": "<|endoftext|>"}, "additional_special_tokens": ["<|one|>"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    ours = tokenizers.Tokenizer.from_str(read_definition(folder))
    assert special_tokens(folder)["bos_token"] == "<|endoftext|>"
    assert ours.token_to_id("<|one|>") == ours.get_vocab_size() - 1


def test_the_tokenizer_takes_no_sentencepiece(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    folder = shutil.copytree(folders["bpe"], tmp_path / "base")
    assert tokenizers.Tokenizer.from_str(read_definition(folder)).encode("Hej").ids


def test_a_file_that_changes_is_read_again(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bpe"], tmp_path / "base")
    before = read_definition(folder)
    shutil.copy(folders["unigram"] / "spiece.model", folder / "spiece.model")
    assert read_definition(folder) != before


def test_a_tokenizer_json_goes_first(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bpe"], tmp_path / "base")
    (folder / "tokenizer.json").write_text("{}")
    assert read_definition(folder) == "{}"


def test_the_template_is_the_bases_own_if_it_has_one(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bpe"], tmp_path / "base")
    assert "Bot:" in chat_template(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "one"}))
    assert chat_template(folder) == "one"
    (folder / "chat_template.jinja").write_text("two")
    assert chat_template(folder) == "two"


@pytest.mark.parametrize(
    ("config", "field"),
    [({"tokenizer_class": "T5Tokenizer"}, "tokenizer_class"), ({"do_lower_case": True}, "do_lower_case")],
)
def test_another_tokenizer_is_refused(
    config: dict[str, Any], field: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["bpe"], tmp_path / "base")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError) as caught:
        read_definition(folder)
    assert caught.value.field == field


def test_a_damaged_file_is_refused_whatever_is_wrong(folders: dict[str, Path], tmp_path: Path) -> None:
    data = (folders["bpe"] / "spiece.model").read_bytes()
    file = tmp_path / "spiece.model"
    damaged = [
        b"",
        b"\x0a",
        data[:-1],
        data[: len(data) // 2],
        b"\xff" * 40,
        b"\x0b\x01",
        b"\x08\x01",
        b"\x0a\x02\x08\x01",
    ]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(BaseModelError) as caught:
            SpieceModel.read(file)
        assert caught.value.path == file


@pytest.mark.parametrize(
    ("options", "named"),
    [({"model_type": "word"}, "model_type 3"), ({"treat_whitespace_as_suffix": True}, "as_suffix")],
)
def test_what_cannot_be_followed_is_refused(options: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = train(tmp_path, hard_vocab_limit=False, byte_fallback=False, **options)
    with pytest.raises(BaseModelError, match=named):
        read_definition(folder)


def test_every_piece_has_its_place_and_kind(folders: dict[str, Path]) -> None:
    file = folders["bpe"] / "spiece.model"
    processor: Any = sentencepiece.SentencePieceProcessor(str(file))
    model = SpieceModel.read(file)
    assert [piece.text for piece in model.pieces] == [
        processor.id_to_piece(place) for place in range(processor.get_piece_size())
    ]
    for place, piece in enumerate(model.pieces):
        assert piece.score == pytest.approx(processor.get_score(place))
        assert (piece.kind is PieceKind.CONTROL) == processor.is_control(place)
        assert (piece.kind is PieceKind.BYTE) == processor.is_byte(place)
    assert model.unk_id == processor.unk_id()

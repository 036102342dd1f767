from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.random_model import PRESETS, DecoderShape, main, write_adapter, write_model

SHAPE = DecoderShape(64, 2, 4, 2, 16, 96, 300, 64)


def test_transformers_and_peft_read_what_is_written(tmp_path: Path) -> None:
    write_model(tmp_path / "base", SHAPE, shard_bytes=100_000)
    assert len(list((tmp_path / "base").glob("model-*.safetensors"))) > 1
    write_adapter(tmp_path / "en", SHAPE, 4, ["q_proj", "down_proj"], seed=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        plain = model(ids).logits
        adapted = PeftModel.from_pretrained(model, str(tmp_path / "en"))(ids).logits
    assert 0.05 < plain.std() < 5
    assert (adapted - plain).abs().max() > 0.01
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Vem är du?"}], tokenize=False)
    assert text == "<s>[INST]Vem är du?[/INST]"


def test_the_tokenizer_has_every_id_and_loses_nothing(tmp_path: Path) -> None:
    write_model(tmp_path, DecoderShape(64, 1, 4, 2, 16, 96, 2000, 64))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 2000
    text = "Åh, hej världen! abcdefg 漢字 😀"
    ids = tokenizer.encode(text).ids
    assert max(ids) < 2000
    assert tokenizer.decode(ids) == text


def test_the_same_seed_makes_the_same_model(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_model(tmp_path / name, SHAPE, seed)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_the_command_makes_a_model_and_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "28m", SHAPE)
    main(
        [str(tmp_path / "m"), "--adapters", "en:8,sv:4", "--targets", "q_proj,up_proj", "--dtype", "bfloat16"]
    )
    assert json.loads(capsys.readouterr().out)["hidden_size"] == 64
    config = json.loads((tmp_path / "m-sv" / "adapter_config.json").read_text())
    assert (config["r"], config["target_modules"]) == (4, ["q_proj", "up_proj"])
    assert (tmp_path / "m-en" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_weights_are_spread_like_an_untrained_model(tmp_path: Path, dtype: str) -> None:
    write_model(tmp_path, SHAPE, dtype=dtype)
    weights = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"].float()
    magnitudes = weights.abs()
    assert 2**-7 <= magnitudes.min() < 2**-6 < magnitudes.max() < 2**-5
    assert abs(weights.mean()) < 1e-3
    assert abs(weights.std() - 0.0189) < 1e-3


def test_impossible_wishes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lm_head"):
        write_adapter(tmp_path, SHAPE, 4, ["lm_head"], 0)
    with pytest.raises(ValueError, match="vocab_size 100"):
        write_model(tmp_path, DecoderShape(64, 1, 4, 2, 16, 96, 100, 64))

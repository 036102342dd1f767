"""What training may be asked for, and in whose words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.lora.families import LLAMA
from adapters.training.finetune.config_names import FIXED, FOREIGN, OWN, read_training_config
from adapters.training.loop.options import OptionError, TrainOptions


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "train.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_defaults_are_those_of_the_existing_installation() -> None:
    options = TrainOptions(language="sv").for_family(LLAMA)
    assert (options.rank, options.alpha, options.dropout) == (8, 32, 0.05)
    assert options.targets == ("q_proj", "v_proj")
    assert (options.epochs, options.batch_size, options.learning_rate) == (3, 8, 1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"language": "danska"}, "language: 'danska' is no language code"),
        ({"rank": 0}, "rank: 0 is too small"),
        ({"batch_size": -1}, "batch_size: -1 is too small"),
        ({"epochs": 0.0}, "epochs: 0 is too small"),
        ({"learning_rate": -1e-4}, "learning_rate: -0.0001 is too small"),
        ({"epochs": float("inf")}, "epochs: inf is not a finite number"),
        ({"learning_rate": float("nan")}, "learning_rate: nan is not a finite number"),
        ({"weight_decay": float("nan")}, "weight_decay: nan is not a finite number"),
        ({"dropout": 1.0}, "dropout: 1 is out of range"),
        ({"warmup": 3.0}, "warmup: 3 is out of range"),
        ({"held_out": 0.6}, "held_out: 0.6 is out of range"),
        ({"early_stop": -1}, "early_stop: -1 is negative"),
        ({"max_length": 4}, "max_length: 4 is too small"),
        ({"target_modules": ()}, "target_modules: names no module"),
        ({"target_modules": ("q_proj", "lm_head")}, "target_modules: holds lm_head"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"language": "en", **values}
    with pytest.raises(OptionError) as refused:
        TrainOptions(**given)
    assert str(refused.value).startswith(message)


TRL = """\
model_name_or_path: models/mistral-7b-instruct
dataset_name: own.jsonl
num_train_epochs: 4
per_device_train_batch_size: 2
gradient_accumulation_steps: 3
learning_rate: 2.0e-4
lr_scheduler_type: cosine
warmup_ratio: 0.1
lora_r: 16
lora_alpha: 64
lora_dropout: 0.1
lora_target_modules: [q_proj, k_proj]
max_length: 512
use_peft: true
assistant_only_loss: true
bf16: true
load_in_4bit: true
"""
AXOLOTL = """\
base_model: models/mistral-7b-instruct
adapter: qlora
datasets:
  - path: own.jsonl
    type: alpaca
num_epochs: 4
micro_batch_size: 2
gradient_accumulation_steps: 3
learning_rate: 0.0002
lr_scheduler: cosine
warmup_ratio: 0.1
lora_r: 16
lora_alpha: 64
lora_dropout: 0.1
lora_target_modules:
  - q_proj
  - k_proj
sequence_len: 512
train_on_inputs: false
optimizer: adamw_torch
bf16: true
"""


def test_trl_and_axolotl_say_the_same(written: Any) -> None:
    trl = read_training_config(written(TRL))
    axolotl = read_training_config(written(AXOLOTL))
    assert trl.pop("dataset") == "own.jsonl"
    assert axolotl.pop("dataset") == ["own.jsonl"]
    assert trl == axolotl
    assert (trl["epochs"], trl["rank"], trl["precision"], trl["load_in_4bit"]) == (4, 16, "bf16", True)


def test_every_name_of_the_table_leads_to_an_option() -> None:
    assert set(FOREIGN.values()) <= OWN
    assert not set(FOREIGN) & (OWN | set(FIXED))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora_rank: 8", "lora_rank: is no option of training; did you mean lora_r?"),
        ("learnin_rate: 8", "learnin_rate: is no option of training; did you mean learning_rate?"),
        ("zzz: 8", "zzz: is no option of training"),
        ("optim: adamw_8bit", "optim: 'adamw_8bit' is not to be had: the optimizer is AdamW"),
        (
            "train_on_inputs: true",
            "train_on_inputs: true is not to be had: the loss is always on the answers",
        ),
        ("load_in_8bit: true", "load_in_8bit: true is not to be had: a base in 4 bits is load_in_4bit"),
        ("packing: true", "packing: true is not to be had"),
        ("adapter: dora", "adapter: 'dora' is not to be had; use lora or qlora"),
        ("dataset_text_field: text", "dataset_text_field: 'text' is not to be had"),
        ("bf16: maybe", "bf16: 'maybe' is none of true, false and auto"),
        ("rank: 8\nlora_r: 8", "lora_r: says the same as rank in this file; keep one"),
        ("datasets: [{type: alpaca}]", "datasets: {'type': 'alpaca'} has no path"),
        ("datasets: [{path: a, type: pygmalion}]", "datasets.type: 'pygmalion' is neither"),
        ("datasets: [{path: a, split: train}]", "datasets.split: is not known here"),
        ("- 1", "config: "),
        ("a: [", "config: "),
        ("", "config: "),
    ],
)
def test_what_a_file_may_not_say_is_refused_by_its_own_word(written: Any, text: str, message: str) -> None:
    with pytest.raises(OptionError) as refused:
        read_training_config(written(text))
    assert str(refused.value).startswith(message)

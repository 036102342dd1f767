"""What training may be asked for, and in whose words."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import LoraConfig
from trl.scripts.utils import ScriptArguments
from trl.trainer.model_config import ModelConfig
from trl.trainer.sft_config import SFTConfig

from adapters.lora.families import LLAMA
from adapters.training.finetune.config_names import OWN, read_training_config
from adapters.training.finetune.config_tables import FIXED, FOREIGN
from adapters.training.loop.options import OptionError, TrainOptions
from adapters.training.pretrain.pretrain_options import read_plan


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
        ({"language": "danska"}, "language: 'danska'"),
        ({"rank": 0}, "rank: 0 "),
        ({"batch_size": -1}, "batch_size: -1 "),
        ({"epochs": 0.0}, "epochs: 0 "),
        ({"learning_rate": -1e-4}, "learning_rate: -0.0001 "),
        ({"epochs": float("inf")}, "epochs: inf "),
        ({"learning_rate": float("nan")}, "learning_rate: nan "),
        ({"weight_decay": float("nan")}, "weight_decay: nan "),
        ({"dropout": 1.0}, "dropout: 1 "),
        ({"warmup": 3.5}, "warmup: 3.5 "),
        ({"warmup": -0.1}, "warmup: -0.1 "),
        ({"held_out": 0.6}, "held_out: 0.6 "),
        ({"early_stop": -1}, "early_stop: -1 "),
        ({"max_length": 4}, "max_length: 4 "),
        ({"target_modules": ()}, "target_modules: "),
        ({"target_modules": ("q_proj", "lm_head")}, r"target_modules: .*\blm_head\b"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"language": "en", **values}
    with pytest.raises(OptionError) as refused:
        TrainOptions(**given)
    assert re.match(message, str(refused.value))


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
    trl = read_training_config(written(TRL)).options
    axolotl = read_training_config(written(AXOLOTL)).options
    assert trl.pop("dataset") == "own.jsonl"
    assert axolotl.pop("dataset") == ["own.jsonl"]
    assert trl == axolotl
    assert (trl["epochs"], trl["rank"], trl["precision"], trl["load_in_4bit"]) == (4, 16, "bf16", True)


ASKS_FOR_SOMETHING_ELSE = {
    "assistant_only_loss",  # false: TRL would learn from the questions of a chat too
    "dataset_text_field",
    "use_peft",  # false: TRL would train the whole base
}


@pytest.mark.parametrize("options", [SFTConfig, ModelConfig, ScriptArguments, LoraConfig])
def test_an_option_with_the_default_of_trl_or_peft_changes_nothing(written: Any, options: type) -> None:
    defaults = {
        item.name: item.default_factory() if item.default_factory is not MISSING else item.default
        for item in fields(options)
        if item.name not in ("runtime_config", "peft_type")
    }
    plain = {name: getattr(value, "value", value) for name, value in defaults.items() if value is not MISSING}
    for name in plain.keys() - ASKS_FOR_SOMETHING_ELSE:
        read_training_config(written(yaml.safe_dump({name: plain[name]})))


def test_a_language_is_its_code_even_if_yaml_reads_it_as_false(written: Any) -> None:
    for code in ("no", "No", "'no'", "sv"):
        assert read_training_config(written(f"language: {code}")).options == {"language": code.strip("'")}
    assert read_training_config(written("gradient_checkpointing: no")).options == {
        "gradient_checkpointing": False
    }


@pytest.mark.parametrize("text", ["rank: 8\nepochs: 1\nrank: 16", "training: {epochs: 1, epochs: 2}"])
def test_an_option_that_is_given_twice_is_refused(written: Any, text: str) -> None:
    for read in (read_training_config, partial(read_plan, scratch=False)):
        with pytest.raises(OptionError, match=r"(rank|epochs) is given twice"):
            read(written(text))


def test_every_name_of_the_table_leads_to_an_option() -> None:
    assert set(FOREIGN.values()) <= OWN
    assert not set(FOREIGN) & (OWN | set(FIXED))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora_rank: 8", "lora_rank: "),
        ("learnin_rate: 8", "learnin_rate: "),
        ("zzz: 8", "zzz: "),
        ("optim: adamw_8bit", "optim: .*'adamw_8bit'"),
        (
            "train_on_inputs: true",
            r"train_on_inputs: .*\btrue\b",
        ),
        ("load_in_8bit: true", r"load_in_8bit: .*\btrue\b"),
        ("packing: true", r"packing: .*\btrue\b"),
        ("adapter: dora", "adapter: .*'dora'"),
        ("dataset_text_field: text", "dataset_text_field: .*'text'"),
        ("bf16: maybe", "bf16: .*'maybe'"),
        ("rank: 8\nlora_r: 8", r"lora_r: .*\brank\b"),
        ("datasets: [{type: alpaca}]", r"datasets: .*\{'type': 'alpaca'\} .*\bpath\b"),
        ("datasets: [{path: a, type: pygmalion}]", r"datasets\.type: .*'pygmalion'"),
        ("datasets: [{path: a, split: 'train[:1%]'}]", r"datasets\.split: .*'train\[:1%\]'"),
        ("- 1", "config: "),
        ("a: [", "config: "),
        ("", "config: "),
    ],
)
def test_what_a_file_may_not_say_is_refused_by_its_own_word(written: Any, text: str, message: str) -> None:
    with pytest.raises(OptionError) as refused:
        read_training_config(written(text))
    assert re.match(message, str(refused.value))


AXOLOTL_EXAMPLE = """\
base_model: mistralai/Mistral-7B-v0.1
model_type: MistralForCausalLM
tokenizer_type: LlamaTokenizer
load_in_8bit: false
load_in_4bit: true
strict: false
datasets:
  - path: own.jsonl
    type: chat_template
    split: train
    field_messages: conversations
    message_property_mappings: {role: from, content: value}
dataset_prepared_path: last_run_prepared
val_set_size: 0.1
output_dir: ./outputs/qlora-out
adapter: qlora
lora_model_dir:
sequence_len: 512
sample_packing: false
eval_sample_packing: false
pad_to_sequence_len: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
lora_target_modules: [q_proj, v_proj]
wandb_project:
wandb_entity:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 1
optimizer: adamw_torch_fused
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: true
gradient_checkpointing: offload
early_stopping_patience:
resume_from_checkpoint:
local_rank:
logging_steps: 1
flash_attention: true
loss_watchdog_threshold: 5.0
warmup_steps: 10
evals_per_epoch: 4
saves_per_epoch: 1
plugins: [axolotl.integrations.liger.LigerPlugin]
debug:
deepspeed:
fsdp: []
weight_decay: 0.0
special_tokens: {pad_token: <|end_of_text|>}
"""
UNSLOTH_EXAMPLE = """\
model: unsloth/Qwen2.5-0.5B
data:
  dataset: own.jsonl
  format_type: auto
training:
  training_type: lora
  max_seq_length: 512
  load_in_4bit: true
  output_dir: ./outputs/qlora-out
  num_epochs: 1
  batch_size: 2
  warmup_steps: 10
  max_steps: 0
  save_steps: 0
  random_seed: 3407
  packing: false
  train_on_completions: true
  gradient_checkpointing: unsloth
lora:
  lora_r: 32
  lora_alpha: 16
  target_modules: "q_proj,v_proj"
  vision_all_linear: false
  use_rslora: false
  use_loftq: false
  use_dora: false
  finetune_vision_layers: true
  finetune_language_layers: true
  finetune_attention_modules: true
  finetune_mlp_modules: true
logging:
  enable_wandb: false
  wandb_project: "unsloth-training"
  log_frequency: 10
"""


def test_the_examples_of_axolotl_and_unsloth_are_read(written: Any) -> None:
    told: list[str] = []
    axolotl = read_training_config(written(AXOLOTL_EXAMPLE), (), told.extend).options
    assert axolotl["load_in_4bit"] is axolotl["gradient_checkpointing"] is True
    assert (axolotl["target_modules"], axolotl["warmup"], axolotl["rank"]) == ("all-linear", 10, 32)
    assert (axolotl["dataset"], axolotl["precision"]) == (["own.jsonl"], "auto")
    assert {"logging_steps", "flash_attention", "plugins", "tf32", "evals_per_epoch"} <= set(told)
    assert not set(told) & {"wandb_project", "debug", "deepspeed"}, "what is empty asks for nothing"
    assert set(axolotl) <= OWN
    unsloth = read_training_config(written(UNSLOTH_EXAMPLE)).options
    assert (unsloth["seed"], unsloth["dataset"], unsloth["max_length"]) == (3407, "own.jsonl", 512)
    assert (unsloth["target_modules"], unsloth["gradient_checkpointing"]) == ("q_proj,v_proj", True)
    assert set(unsloth) <= OWN


def test_all_that_is_wrong_with_a_file_is_told_at_once(written: Any) -> None:
    wrong = "sample_packing: true\nload_in_8bit: true\noptimizer: lion\nlora_rnk: 8\nrl: dpo\nlora_r: 4\n"
    more = "rank: 4\nlora_target_modules: 'layers.[0-9]+.q_proj'\nspecial_tokens: {eos_token: <x>}\n"
    with pytest.raises(OptionError) as refused:
        read_training_config(written(wrong + more))
    lines = str(refused.value).splitlines()
    assert re.search(r"\b8\b", lines[0])
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        *("sample_packing", "load_in_8bit", "optimizer", "lora_rnk", "rl", "rank"),
        *("lora_target_modules", "special_tokens"),
    ]


def test_every_linear_module_is_one_word(written: Any) -> None:
    options = TrainOptions(language="sv", target_modules=("all-linear",)).for_family(LLAMA)
    assert set(options.targets) == set(LLAMA.names)


@pytest.mark.parametrize(("warmup", "updates"), [(0.5, 0.5), (1.0, 1), (10.0, 10)])
def test_warmup_is_a_share_or_a_number_of_updates(warmup: float, updates: float) -> None:
    assert TrainOptions(language="sv", warmup=warmup).warmup == updates

"""Training configurations under the names that other trainers use: TRL's (with PEFT's) and axolotl's.

One table says which of OneSeek's options a name is. What is not in it is refused by name; what asks for
something else than OneSeek does (another optimizer, loss on the questions too) is refused, never ignored.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import yaml

from adapters.training.loop.options import OptionError, TrainOptions

_RUN = ("alias", "base_model", "dataset", "external_model", "output", "version")
OWN = frozenset({*_RUN, *(item.name for item in fields(TrainOptions))})
"""OneSeek's own names."""

FOREIGN: Mapping[str, str] = {
    # TRL, transformers and PEFT
    "model_name_or_path": "base_model",
    "dataset_name": "dataset",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "max_seq_length": "max_length",
    "output_dir": "output",
    "r": "rank",
    "lora_r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lora_target_modules": "target_modules",
    # axolotl
    "base_model_config": "base_model",
    "micro_batch_size": "batch_size",
    "num_epochs": "epochs",
    "lr_scheduler": "schedule",
    "sequence_len": "max_length",
    "val_set_size": "held_out",
    "early_stopping_patience": "early_stop",
}
"""Another trainer's name to OneSeek's, where the value means the same."""

FIXED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "use_peft": ((True,), "OneSeek trains LoRA adapters alone"),
    "peft_type": (("LORA",), "OneSeek trains LoRA adapters alone"),
    "task_type": (("CAUSAL_LM",), "OneSeek trains causal language models"),
    "bias": (("none",), "the base stays as it is"),
    "lora_bias": (("none", False), "the base stays as it is"),
    "use_rslora": ((False,), "the LoRA's scale is alpha / rank"),
    "use_dora": ((False,), "OneSeek trains plain LoRA adapters"),
    "load_in_8bit": ((False,), "a base in 4 bits is load_in_4bit"),
    "completion_only_loss": ((True,), "the loss is always on the answers alone"),
    "assistant_only_loss": ((True,), "the loss is always on the answers alone"),
    "train_on_inputs": ((False,), "the loss is always on the answers alone"),
    "packing": ((False,), "examples are padded, not packed"),
    "sample_packing": ((False,), "examples are padded, not packed"),
    "pad_to_sequence_len": ((False,), "batches are padded to their longest example"),
    "optim": (("adamw_torch",), "the optimizer is AdamW"),
    "optimizer": (("adamw_torch",), "the optimizer is AdamW"),
    "report_to": (("none",), "progress goes to the terminal, or to JSON lines"),
    "strict": ((False,), "the base decides how it is loaded"),
    "fp16": ((False, "auto"), "precision is bf16 or fp32"),
    "tf32": ((False, "auto"), "precision is bf16 or fp32"),
    "dataset_text_field": ((), "the text comes from instruction, input and output, or from messages"),
}
"""Names that OneSeek knows and that can have these values alone, and why."""

_TYPES = (None, "alpaca", "chat_template")
"""Kinds of axolotl's datasets that OneSeek reads."""
_TRANSLATED = ("adapter", "bf16", "datasets")


def read_training_config(path: Path, also: Collection[str] = ()) -> dict[str, Any]:
    """OneSeek's options, by name, that the YAML file `path` gives in any trainer's words.

    `also` are further names of OneSeek's own. Values are as YAML has them. Raises `OptionError` naming the
    file's own word for what is unknown, said twice, or not to be had; `OSError` where it cannot be read.
    """
    try:
        found: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = str(error).replace("\n", " ")
        raise OptionError("config", f"{path} is no YAML: {problem}") from error
    if not isinstance(found, dict):
        raise OptionError("config", f"{path} holds no mapping of names to values")
    options: dict[str, Any] = {}
    said: dict[str, str] = {}
    for name, value in cast("dict[object, Any]", found).items():
        for option, meant in _meaning(str(name), value, also).items():
            if option in said:
                raise OptionError(str(name), f"says the same as {said[option]} in this file; keep one")
            said[option], options[option] = str(name), meant
    return options


def _meaning(name: str, value: Any, also: Collection[str]) -> dict[str, Any]:
    """What one line of a configuration asks for."""
    if name in FIXED:
        accepted, why = FIXED[name]
        if value not in accepted:
            instead = f"leave it out or use {_format_value(accepted[0])}" if accepted else "leave it out"
            raise OptionError(name, f"{_format_value(value)} is not to be had: {why}; {instead}")
        return {}
    if name == "adapter":
        if value not in ("lora", "qlora"):
            raise OptionError(name, f"{_format_value(value)} is not to be had; use lora or qlora")
        return {"load_in_4bit": True} if value == "qlora" else {}
    if name == "bf16":
        if value not in (True, False, "auto"):
            raise OptionError(name, f"{_format_value(value)} is none of true, false and auto")
        return {"precision": "auto" if value == "auto" else "bf16" if value else "fp32"}
    if name == "datasets":
        return {"dataset": _paths(value)}
    option = FOREIGN.get(name, name)
    if option not in OWN and option not in also:
        known = sorted({*OWN, *also, *FOREIGN, *FIXED, *_TRANSLATED})
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise OptionError(name, f"is no option of training{hint}")
    return {option: value}


def _paths(value: Any) -> list[str]:
    """The files of axolotl's `datasets`."""
    entries: list[Any] = value if isinstance(value, list) else [value]
    found: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict) or "path" not in entry:
            raise OptionError("datasets", f"{_format_value(entry)} has no path; write - path: FILE.jsonl")
        about = cast("dict[str, Any]", entry)
        for key in about:
            if key not in ("path", "type"):
                raise OptionError(f"datasets.{key}", "is not known here; a data set has path and type")
        if about.get("type") not in _TYPES:
            raise OptionError(
                "datasets.type", f"{_format_value(about['type'])} is neither alpaca nor chat_template"
            )
        found.append(str(about["path"]))
    return found


def _format_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)

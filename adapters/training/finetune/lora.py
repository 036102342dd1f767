"""Train a LoRA on conversations with PEFT and OneSeek's own training loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from adapters.lora.families import FAMILIES, LLAMA
from adapters.training.loop import optimizers
from adapters.training.loop.callbacks import Interruption
from adapters.training.loop.feed import MakeBatch, StepFeed
from adapters.training.loop.progress import Reporter
from adapters.training.loop.schedule import Schedule
from adapters.training.loop.trainer import Setup, Trainer, TrainerResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Size of a LoRA: rank, scaling (alpha), dropout and target modules."""

    rank: int = 8
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] = LLAMA.usual


def attach(base: PreTrainedModel, shape: Rank, seed: int, base_name: str) -> PeftModel:
    """Insert a new LoRA into the base model `base`, initialised with `seed`. The LoRA's config will name
    `base_name` as its base model.
    """
    torch.manual_seed(seed)
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=sorted(shape.targets),
        fan_in_fan_out=FAMILIES[base.config.model_type].stores_transposed(shape.targets),
        bias="none",
        task_type=TaskType.CAUSAL_LM,
        base_model_name_or_path=base_name,
    )
    base.name_or_path = base_name
    return get_peft_model(base, config)  # pyright: ignore[reportReturnType]


def train_lora(
    model: PeftModel,
    batches: MakeBatch,
    schedule: Schedule,
    reporter: Reporter,
    *,
    stage: str,
    checkpoints: Path,
    setup: Setup | None = None,
    interruption: Interruption | None = None,
) -> TrainerResult:
    """Train the LoRA in `model` in place, from its newest checkpoint in `checkpoints` if there is one. The
    base model's weights do not change.
    """
    trainer = Trainer(
        model,  # pyright: ignore[reportArgumentType]
        StepFeed(batches),
        schedule,
        reporter,
        stage=stage,
        checkpoints=checkpoints,
        setup=setup,
        make_optimizers=optimizers.lora,
        interruption=interruption,
    )
    return trainer.run()

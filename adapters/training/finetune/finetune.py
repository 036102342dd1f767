"""Train one LoRA with TRL's SFTTrainer: the base model is frozen, the loss is on answers only, and a resumed
run gives bit-identical results.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from peft import LoraConfig, PeftModel, TaskType
from transformers import EarlyStoppingCallback, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from adapters.lora.families import FAMILIES, LoraFamily
from adapters.training.finetune.base import Machine, resolve_precision
from adapters.training.finetune.examples import TokenizedExample
from adapters.training.loop.callbacks import Curve, ShowProgress, StopOnDivergence, StopOnInterrupt
from adapters.training.loop.interruption import Interruption
from adapters.training.loop.options import OptionError, TrainOptions
from adapters.training.loop.progress import Reporter


@dataclass(frozen=True, slots=True)
class FinetuneRun:
    """The result of a LoRA training run that finished or was interrupted."""

    model: PeftModel
    curve: Curve
    steps: int
    planned: int
    """Number of steps that the run would take without early stopping."""
    seconds: float
    interrupted: bool
    main: bool
    """True if this process is the one that writes the results of the run."""
    planned_epochs: float
    """Number of epochs that the run would take without early stopping."""

    @property
    def best_held_out(self) -> tuple[int, float] | None:
        """Step and loss of the best held-out evaluation. The weights of that step are kept. None without
        evaluations.
        """
        points = [point for point in self.curve.held_out if math.isfinite(point[1])]
        return min(points, key=lambda point: point[1], default=None)

    @property
    def kept_epoch(self) -> float:
        """The epoch whose weights were kept: the one with the lowest held-out loss, or else the last."""
        best = self.best_held_out
        return self._epoch_at(best[0] if best is not None else self.steps)

    @property
    def epochs(self) -> float:
        """Number of epochs that the run took."""
        return self._epoch_at(self.steps)

    @property
    def stopped_early(self) -> bool:
        """True if training ended before the planned steps, because the held-out loss stopped falling or the
        training diverged.
        """
        return self.steps < self.planned and not self.interrupted

    @property
    def diverged(self) -> bool:
        """True if a loss is not a finite number, or if the training loss of the last quarter is more than 1.5
        times that of the first quarter.
        """
        losses = [loss for _, loss in self.curve.train]
        if not all(math.isfinite(loss) for loss in (*losses, *(loss for _, loss in self.curve.held_out))):
            return True
        quarter = len(losses) // 4
        return quarter > 1 and sum(losses[-quarter:]) > 1.5 * sum(losses[:quarter])

    def _epoch_at(self, step: int) -> float:
        return round(step / self.planned * self.planned_epochs, 2) if self.planned else 0.0


def last_checkpoint(work: Path) -> Path | None:
    """Return the newest complete checkpoint in the folder `work`; None if there is none. A checkpoint is
    complete if its last file, trainer_state.json, is readable.
    """
    found: list[tuple[int, Path]] = []
    for folder, number in _numbered(work).items():
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found.append((number, folder))
    return max(found)[1] if found else None


def finetune(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    training: Sequence[TokenizedExample],
    held_out: Sequence[TokenizedExample],
    options: TrainOptions,
    machine: Machine,
    *,
    work: Path,
    resume: bool,
    reporter: Reporter,
    interruption: Interruption,
) -> FinetuneRun:
    """Train a new LoRA on the base model `base`, with checkpoints in the folder `work`. With `resume`,
    continue from the newest complete checkpoint.

    The LoRA modules are inserted into `base`, whose own weights do not change. Raises `OptionError` if a
    target module does not exist, or if the base model's family is not supported.
    """
    checkpoint = last_checkpoint(work) if resume else None
    if machine.rank == 0:
        numbers = _numbered(work)
        for folder, number in numbers.items():
            if checkpoint is None or number > numbers[checkpoint]:
                shutil.rmtree(folder)
    family = _checked_family(base, options)
    progress = ShowProgress(reporter, "training")
    callbacks: list[TrainerCallback] = [
        StopOnInterrupt(interruption),
        StopOnDivergence(),
        progress,
    ]
    if held_out and options.early_stop:
        callbacks.append(EarlyStoppingCallback(options.early_stop))
    # peft 0.21 asks transformers 5.23 for a name that the latter is about to drop.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    trainer = SFTTrainer(
        model=base,
        args=_arguments(options, machine, work, len(training), bool(held_out)),
        train_dataset=Dataset.from_list(list(training)),
        eval_dataset=Dataset.from_list(list(held_out)) if held_out else None,
        processing_class=tokenizer,
        peft_config=_lora(family, options),
        callbacks=callbacks,
    )
    for unwanted in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(unwanted)
    try:
        with interruption.listening():
            outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        progress.close()
    state = trainer.state
    return FinetuneRun(
        model=cast("PeftModel", trainer.accelerator.unwrap_model(trainer.model)),
        curve=Curve.of(state.log_history),
        steps=state.global_step,
        planned=state.max_steps,
        seconds=float(outcome.metrics["train_runtime"]),
        interrupted=interruption.asked and state.global_step < state.max_steps,
        main=bool(state.is_world_process_zero),
        planned_epochs=options.epochs,
    )


def _numbered(work: Path) -> dict[Path, int]:
    """Return the checkpoint folders in `work`, each with its step. Other files in `work` are ignored."""
    steps = {folder: folder.name.partition("-")[2] for folder in work.glob("checkpoint-*")}
    return {folder: int(step) for folder, step in steps.items() if step.isascii() and step.isdigit()}


def _checked_family(base: PreTrainedModel, options: TrainOptions) -> LoraFamily:
    kind = str(base.config.model_type)
    family = FAMILIES.get(kind)
    if family is None:
        raise OptionError(
            "base_model", f"OneSeek cannot serve a LoRA for model_type {kind!r}; use another base model"
        )
    modules = {name.rpartition(".")[2] for name, _ in base.named_modules()}
    for target in options.targets:
        if target.rpartition(".")[2] not in modules:
            raise OptionError(
                "target_modules",
                f"{target!r} is not a module of the base model; use some of {', '.join(family.names)}",
            )
    return family


def _lora(family: LoraFamily, options: TrainOptions) -> LoraConfig:
    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(options.targets),
        fan_in_fan_out=family.stores_transposed(options.targets),
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )


def _arguments(options: TrainOptions, machine: Machine, work: Path, examples: int, judged: bool) -> SFTConfig:
    updates = math.ceil(examples / (options.batch_size * machine.processes * options.gradient_accumulation))
    # transformers renamed it on the way to 6.
    renamed = "activation_checkpointing" in {item.name for item in fields(SFTConfig)}
    checkpointing = "activation_checkpointing" if renamed else "gradient_checkpointing"
    more: dict[str, Any] = {checkpointing: options.gradient_checkpointing}
    if judged:
        more |= {
            "eval_strategy": "epoch",
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
            "per_device_eval_batch_size": options.batch_size,
        }
    return SFTConfig(
        output_dir=str(work),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        max_length=None,
        seed=options.seed,
        bf16=resolve_precision(options.precision, machine) == "bf16",
        use_cpu=not machine.cuda,
        optim="adamw_torch",
        save_strategy="epoch",
        save_total_limit=2,
        logging_steps=max(1, round(updates * options.epochs / 200)),
        # Log a loss that is not a number; do not replace it by the last valid one.
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=bool(machine.cuda),
        **more,
    )

"""Trains all weights of a base, from nothing or from another base, and writes it in Hugging Face layout.

`oneseek train scratch`, `oneseek train continue` and the mini base's build are all made of this.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from adapters.training.loop.callbacks import Interruption
from adapters.training.loop.feed import Feed, TrainingBatch
from adapters.training.loop.files import write_folder
from adapters.training.loop.optimizers import adamw, muon
from adapters.training.loop.options import OptionError
from adapters.training.loop.progress import Reporter
from adapters.training.loop.schedule import Schedule
from adapters.training.loop.trainer import Setup, Trainer, TrainerResult

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model that does not exist yet: its first values are drawn with `seed`."""

    config: PreTrainedConfig
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseJob:
    """A base to be made."""

    stage: str
    """What its progress is called."""
    start: NewModel | Path
    """From nothing, or from a base in Hugging Face layout."""
    tokenizer: Path
    """Folder of the files that go along: tokenizer, chat template."""
    files: tuple[str, ...] | None = None
    """Which files of that folder; None takes all."""
    schedule: Schedule
    optimizer: Literal["muon", "adamw"] = "muon"
    setup: Setup = field(default_factory=Setup)
    generation: GenerationConfig | None = None
    """How the base wants to be sampled; None leaves that as it is where it starts from."""
    saved_as: Literal["bf16", "fp32"] = "bf16"
    checkpoints: Path
    """Folder of the unfinished work, which goes on where it is; the caller removes it."""
    output: Path
    """Folder to make."""


@dataclass(frozen=True, slots=True)
class BaseResult:
    """A base that was made, or a training that was interrupted."""

    fitted: TrainerResult
    parameters: int
    main: bool
    """Whether this process is the one that wrote it."""


def load_start(start: NewModel | Path) -> PreTrainedModel:
    """The model to train, in float32. On CPUs eager attention's backward pass beats the flash kernel's at
    short lengths, and it keeps packed documents apart as the fused one does.
    """
    attention = "sdpa" if torch.cuda.is_available() else "eager"
    if isinstance(start, NewModel):
        torch.manual_seed(start.seed)
        found = AutoModelForCausalLM.from_config(
            start.config, dtype=torch.float32, attn_implementation=attention
        )
    else:
        found = AutoModelForCausalLM.from_pretrained(
            start, dtype=torch.float32, attn_implementation=attention, local_files_only=True
        )
    return cast("PreTrainedModel", found)


def new_accelerator(optimizer: str) -> Accelerator:
    """What this process computes with, as `accelerate launch` set it up. Raises `OptionError`."""
    found = Accelerator(cpu=not torch.cuda.is_available())
    if found.distributed_type == DistributedType.FSDP:
        if not found.is_fsdp2:
            raise OptionError("fsdp_version", "1 is not to be had; launch with --fsdp_version 2")
        if optimizer == "muon":
            raise OptionError("optimizer", "muon needs whole matrices, which FSDP cuts up; use adamw")
    return found


def train_base(
    job: BaseJob,
    feed: Feed,
    reporter: Reporter,
    *,
    held_out: TrainingBatch | None = None,
    interruption: Interruption | None = None,
    finish: Callable[[Path, TrainerResult], Any] = lambda folder, fitted: None,
) -> BaseResult:
    """Run `job` on `feed`, from its newest checkpoint where there is one.

    `finish` may add files to the folder before it gets its name. Raises `OptionError` where a launcher's
    settings do not fit.
    """
    accelerator = new_accelerator(job.optimizer)
    model = load_start(job.start)
    parameters = model.num_parameters()
    trainer = Trainer(
        model,
        feed,
        job.schedule,
        reporter,
        stage=job.stage,
        checkpoints=job.checkpoints,
        setup=job.setup,
        make_optimizers={"muon": muon, "adamw": adamw}[job.optimizer],
        held_out=held_out,
        interruption=interruption,
        accelerator=accelerator,
    )
    fitted = trainer.run()
    main = bool(accelerator.is_main_process)
    if not fitted.interrupted:
        whole = _whole(model, trainer)
        if main:
            write_folder(job.output, lambda folder: _write(job, whole, fitted, folder, finish))
        accelerator.wait_for_everyone()
    return BaseResult(fitted, parameters, main)


def _whole(model: PreTrainedModel, trainer: Trainer) -> PreTrainedModel:
    """The model with all its weights; where they are spread over processes, put together again."""
    if trainer.accelerator.distributed_type != DistributedType.FSDP:
        return model
    weights = trainer.weights
    with torch.device("meta"):
        found = cast("PreTrainedModel", AutoModelForCausalLM.from_config(model.config))
    if trainer.accelerator.is_main_process:
        found.load_state_dict(weights, assign=True, strict=False)
        found.tie_weights()
    return found


def _write(
    job: BaseJob,
    model: PreTrainedModel,
    fitted: TrainerResult,
    folder: Path,
    finish: Callable[[Path, TrainerResult], Any],
) -> None:
    model.to(_DTYPES[job.saved_as])  # pyright: ignore[reportArgumentType] # its stub is amiss
    if job.generation is not None:
        model.generation_config = job.generation
    model.save_pretrained(folder, max_shard_size="4GB")
    for file in job.tokenizer.iterdir():
        if job.files is None or file.name in job.files:
            shutil.copyfile(file, folder / file.name)
    finish(folder, fitted)

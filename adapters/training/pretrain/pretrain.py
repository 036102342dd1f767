"""Train all weights of a base model, new or existing, and write the result in Hugging Face format.

`oneseek train scratch`, `oneseek train continue` and the build of the mini base model use this module.
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

from adapters.files.atomic import staged_folder
from adapters.training.loop.callbacks import Interruption
from adapters.training.loop.feed import Feed, TrainingBatch
from adapters.training.loop.optimizers import adamw, muon
from adapters.training.loop.options import OptionError
from adapters.training.loop.progress import Reporter
from adapters.training.loop.schedule import Schedule
from adapters.training.loop.trainer import Setup, Trainer, TrainerResult

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class NewModel:
    """The configuration of a new base model, whose weights are initialised at random with `seed`."""

    config: PreTrainedConfig
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseJob:
    """The inputs for training a base model: where to start, how to train, and where to write the result."""

    stage: str
    """Name of this training stage in progress reports."""
    start: NewModel | Path
    """What to train: a new model, or the folder of an existing base model in Hugging Face format."""
    tokenizer: Path
    """Folder whose tokenizer and chat template are copied to the new base model."""
    files: tuple[str, ...] | None = None
    """Names of the files to copy from the tokenizer's folder. None: all files."""
    schedule: Schedule
    optimizer: Literal["muon", "adamw"] = "muon"
    setup: Setup = field(default_factory=Setup)
    generation: GenerationConfig | None = None
    """Default sampling parameters of the new base model. None: keep those of the base model that training
    starts from.
    """
    saved_as: Literal["bf16", "fp32"] = "bf16"
    checkpoints: Path
    """Folder for checkpoints. A later run continues from the newest one; the caller deletes the folder."""
    output: Path
    """Folder that the trained base model is written to."""


@dataclass(frozen=True, slots=True)
class BaseResult:
    """The result of training a base model, which finished or was interrupted."""

    fitted: TrainerResult
    parameters: int
    main: bool
    """True if this process is the one that writes the base model, among the processes of the run."""


def load_start(start: NewModel | Path) -> PreTrainedModel:
    """Load or create the model to train, in float32.

    On a CPU it uses eager attention. For short sequences, the backward pass is faster than with the fused
    kernel, and attention also stays within each packed document.
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
    """Return the accelerator of this process, set up as `accelerate launch` configured it. Raises
    `OptionError` if it configured FSDP 1, or FSDP with the optimizer Muon.
    """
    found = Accelerator(cpu=not torch.cuda.is_available())
    if found.distributed_type == DistributedType.FSDP:
        if not found.is_fsdp2:
            raise OptionError("fsdp_version", "FSDP 1 is not supported; launch with --fsdp_version 2")
        if optimizer == "muon":
            raise OptionError("optimizer", "muon needs whole matrices, but FSDP splits matrices; use adamw")
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
    """Train the base model of `job` on the batches of `feed`. If there is a checkpoint, continue from the
    newest one.

    `finish` may add files to the output folder before the folder appears. Raises `OptionError` if the
    launcher's settings do not fit the job.
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
            with staged_folder(job.output) as folder:
                _write(job, whole, fitted, folder, finish)
        accelerator.wait_for_everyone()
    return BaseResult(fitted, parameters, main)


def _whole(model: PreTrainedModel, trainer: Trainer) -> PreTrainedModel:
    """Return the model with all its weights. If they are spread over several processes, gather them first."""
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

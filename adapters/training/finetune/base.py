"""Load the base model for training, in a form that fits this machine: on its CPU or GPU, in a number format
that it supports, and in 4 bits if wanted.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import prepare_model_for_kbit_training
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from adapters.spiece.gpt_sw3 import (
    CHAT_TEMPLATE,
    chat_template,
    is_gpt_sw3,
    read_definition,
    special_tokens,
)
from adapters.training.loop.launch import ALONE, Launch
from adapters.training.loop.options import OptionError, TrainOptions, TrainPrecision


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware that this training process can use."""

    cuda: int
    """Number of CUDA devices that this process sees."""
    bf16: bool
    """True if the hardware supports multiplying bfloat16 numbers."""
    launch: Launch = ALONE
    """How a launcher, such as `accelerate launch`, started this process: its number, and the number of
    processes in the run.
    """

    @classmethod
    def here(cls, launch: Launch) -> Machine:
        """Detect the hardware that this process can use."""
        cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else _cpu_has_bf16()
        return cls(cuda=cuda, bf16=bf16, launch=launch)

    @property
    def launched(self) -> bool:
        """True if a launcher, such as `accelerate launch`, started this process."""
        return self.launch.local_rank is not None

    @property
    def processes(self) -> int:
        """Number of processes in this run, as the launcher set it."""
        return self.launch.processes

    @property
    def rank(self) -> int:
        """Number of this process, counted from 0. Process 0 writes the results."""
        return self.launch.rank


def _cpu_has_bf16() -> bool:
    """True if the CPU can multiply bfloat16 numbers in hardware (AVX-512 BF16 or AMX)."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in probes)


def check_machine(options: TrainOptions, machine: Machine) -> None:
    """Raise `OptionError` if this machine cannot do what `options` ask for. The message says what
    to change.
    """
    if options.load_in_4bit and not machine.cuda:
        raise OptionError(
            "load_in_4bit",
            "a base model in 4 bits (QLoRA) needs an NVIDIA GPU, and none is visible here; "
            "leave load_in_4bit out, or train on a machine with such a GPU",
        )
    if options.load_in_4bit and importlib.util.find_spec("bitsandbytes") is None:
        raise OptionError(
            "load_in_4bit", "a base model in 4 bits needs bitsandbytes: run pip install 'oneseek[qlora]'"
        )
    if options.precision == "bf16" and machine.cuda and not machine.bf16:
        raise OptionError("precision", "this GPU cannot compute in bf16; use fp32 or auto")
    if machine.cuda > 1 and not machine.launched:
        raise OptionError(
            "devices",
            f"{machine.cuda} GPUs are visible to one process; start a process for each GPU with "
            "`accelerate launch -m server train identity …`, or choose one GPU with CUDA_VISIBLE_DEVICES=0",
        )


def resolve_precision(asked: TrainPrecision, machine: Machine) -> Literal["bf16", "fp32"]:
    """Return the number format to compute in: the wanted one, or for `auto` bf16 if the hardware
    supports it.
    """
    if asked == "auto":
        return "bf16" if machine.bf16 else "fp32"
    return asked


def load_base(folder: Path, options: TrainOptions, machine: Machine) -> PreTrainedModel:
    """Load the base model in `folder` with frozen weights. On a CPU the weights are float32; on a GPU they
    have the format of the computation, or 4 bits.
    """
    kept = (
        torch.bfloat16
        if machine.cuda and resolve_precision(options.precision, machine) == "bf16"
        else torch.float32
    )
    more: dict[str, Any] = {}
    if options.load_in_4bit:
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=kept,
        )
        more["device_map"] = {"": machine.launch.local_rank or 0}
    model = cast(
        "PreTrainedModel",
        AutoModelForCausalLM.from_pretrained(folder, dtype=kept, local_files_only=True, **more),
    )
    if options.load_in_4bit:
        model = cast(
            "PreTrainedModel",
            # The trainer sees to checkpointing, by the name that this transformers has for it.
            prepare_model_for_kbit_training(model, use_gradient_checkpointing=False),
        )
    for value in model.parameters():
        value.requires_grad_(False)
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the base model in `folder`. If it has no padding token, the end-of-text token is
    used for padding.

    Checkpoints of GPT-SW3 have no chat template, so they get the one from GPT-SW3's model cards.
    """
    tokenizer = _read_tokenizer(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if is_gpt_sw3(folder):
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(read_definition(folder)),
            chat_template=chat_template(folder),
            **special_tokens(folder),
        )
    return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(folder, local_files_only=True))


def answer_ends(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of the tokens that end an answer. With GPT-SW3's chat template, the begin-of-text token
    also ends an answer.
    """
    ends = [tokenizer.eos_token_id]
    if tokenizer.chat_template == CHAT_TEMPLATE:
        ends.append(tokenizer.bos_token_id)
    return {cast("int", end) for end in ends if end is not None}

"""The base that is trained on, as this machine can hold it: device, precision, or 4 bits."""

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
    """What this process can compute with."""

    cuda: int
    """CUDA devices that are visible."""
    bf16: bool
    """Whether the hardware multiplies bfloat16 itself."""
    launch: Launch = ALONE
    """How this process was started."""

    @classmethod
    def here(cls, launch: Launch) -> Machine:
        """This machine, as the process sees it that was started so."""
        cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else _cpu_has_bf16()
        return cls(cuda=cuda, bf16=bf16, launch=launch)

    @property
    def launched(self) -> bool:
        """Whether a launcher, such as `accelerate launch`, started this process."""
        return self.launch.local_rank is not None

    @property
    def processes(self) -> int:
        """How many processes it started for this run."""
        return self.launch.processes

    @property
    def rank(self) -> int:
        """Which of them this is; 0 writes what is made."""
        return self.launch.rank


def _cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 (AVX-512 BF16 or AMX)."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in probes)


def check_machine(options: TrainOptions, machine: Machine) -> None:
    """Raises `OptionError` where `options` ask for what this machine cannot do, with what would help."""
    if options.load_in_4bit and not machine.cuda:
        raise OptionError(
            "load_in_4bit",
            "a base in 4 bits (QLoRA) is computed on NVIDIA GPUs alone, and none is visible here; "
            "leave it out, or train where there is one",
        )
    if options.load_in_4bit and importlib.util.find_spec("bitsandbytes") is None:
        raise OptionError("load_in_4bit", "needs bitsandbytes: pip install 'oneseek[qlora]'")
    if options.precision == "bf16" and machine.cuda and not machine.bf16:
        raise OptionError("precision", "bf16 is not computed by this GPU; use fp32, or auto")
    if machine.cuda > 1 and not machine.launched:
        raise OptionError(
            "devices",
            f"{machine.cuda} GPUs are visible to one process; start one on each with "
            "`accelerate launch -m server train identity …`, or choose one with CUDA_VISIBLE_DEVICES=0",
        )


def resolve_precision(asked: TrainPrecision, machine: Machine) -> Literal["bf16", "fp32"]:
    """What is computed in."""
    if asked == "auto":
        return "bf16" if machine.bf16 else "fp32"
    return asked


def load_base(folder: Path, options: TrainOptions, machine: Machine) -> PreTrainedModel:
    """The base in `folder`, frozen; on the CPU in float32, on a GPU in what it computes in, or in 4 bits."""
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
    """The base's tokenizer; a base without a padding token pads with its end of text.

    GPT-SW3, whose checkpoints have no chat template, gets that of its model cards.
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
    """The tokens that end an answer; GPT-SW3 ends one with the token that begins the next turn."""
    ends = [tokenizer.eos_token_id]
    if tokenizer.chat_template == CHAT_TEMPLATE:
        ends.append(tokenizer.bos_token_id)
    return {cast("int", end) for end in ends if end is not None}

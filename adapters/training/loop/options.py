"""Options of a LoRA training run. The command line's flags are generated from these fields, so this module
imports no heavy library.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from adapters import names
from adapters.lora.families import LoraFamily

ScheduleName = Literal["linear", "cosine", "constant", "constant_with_warmup"]
TrainPrecision = Literal["auto", "bf16", "fp32"]

ALL_LINEAR = "all-linear"
"""PEFT's name for all linear modules of the base model, as a value of `target_modules`."""


class OptionError(ValueError):
    """An option of a training or distillation run has an invalid value. The message names the option, the
    value and a valid choice.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """The options that decide the result of a LoRA training run, together with the base model and the data.
    Raises `OptionError` for invalid values.
    """

    language: str
    """Language of the answers, as an ISO 639-1 code such as sv. It must be a language that the server's
    router can detect.
    """
    epochs: float = 3.0
    """Number of passes over the training examples. Early stopping may end training earlier."""
    batch_size: int = 8
    """Number of examples that each device processes per step."""
    gradient_accumulation: int = 1
    """Number of steps whose gradients are added up before the weights are updated."""
    learning_rate: float = 1e-4
    """Peak learning rate of the AdamW optimizer."""
    schedule: ScheduleName = "linear"
    """The schedule by which the learning rate changes after the warmup."""
    warmup: float = 0.0
    """Number of updates over which the learning rate rises to its peak. A value below 1 is a fraction of all
    updates.
    """
    weight_decay: float = 0.0
    """Weight decay of the AdamW optimizer."""
    max_grad_norm: float = 1.0
    """Maximum norm of the gradient. A larger gradient is scaled down to this norm."""
    rank: int = 8
    """Rank of the LoRA matrices."""
    alpha: int = 32
    """Scale of the LoRA: the update to the weights is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout probability of the LoRA's input, from 0 to below 1."""
    target_modules: tuple[str, ...] | None = None
    """Modules of the base model that get a LoRA; all-linear means every linear module. Default: the usual
    modules of the base model's family, such as q_proj.
    """
    max_length: int = 1024
    """Maximum number of tokens of one example. Longer examples are left out and counted."""
    held_out: float = 0.1
    """Fraction of the questions, from 0 to 0.5, that are held out from training to decide when to stop."""
    early_stop: int = 3
    """Number of epochs without a lower held-out loss after which training stops early. 0 never
    stops early.
    """
    seed: int = 42
    """Random seed of the held-out split, the LoRA's initial weights, the order of examples, and dropout."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass. This saves memory and takes about a fifth more time."""
    precision: TrainPrecision = "auto"
    """Number format to compute in: bf16, fp32, or auto, which uses bf16 if the hardware supports it."""
    load_in_4bit: bool = False
    """Hold the base model's weights in 4 bits (QLoRA). This needs an NVIDIA GPU and bitsandbytes."""

    def __post_init__(self) -> None:
        check_finite(self)
        try:
            names.language(self.language)
        except ValueError as error:
            raise OptionError("language", str(error)) from None
        for name in ("batch_size", "gradient_accumulation", "rank", "alpha"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)} is too small for this option; use at least 1")
        for name in ("epochs", "learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise OptionError(
                    name, f"{getattr(self, name):g} is too small for this option; use more than 0"
                )
        if not 0 <= self.dropout < 1:
            raise OptionError(
                "dropout", f"{self.dropout:g} is out of range; use a probability from 0 to below 1"
            )
        if self.warmup < 0 or (self.warmup > 1 and not self.warmup.is_integer()):
            raise OptionError(
                "warmup",
                f"{self.warmup:g} is out of range; use a fraction below 1, or a whole number of updates",
            )
        for name in ("weight_decay", "early_stop", "seed"):
            if getattr(self, name) < 0:
                raise OptionError(
                    name,
                    f"{getattr(self, name)} is negative, which this option does not allow; use 0 or more",
                )
        if self.max_length < 8:
            raise OptionError(
                "max_length", f"{self.max_length} is too small; allow at least 8 tokens for an example"
            )
        if not 0 <= self.held_out <= 0.5:
            raise OptionError(
                "held_out", f"{self.held_out:g} is out of range; hold out a fraction from 0 to 0.5"
            )
        if self.target_modules == ():
            raise OptionError(
                "target_modules",
                "the list of modules is empty; leave the option out to use the base model's usual ones",
            )
        if "lm_head" in (self.target_modules or ()):
            raise OptionError(
                "target_modules", "the list holds lm_head, which OneSeek does not train; leave lm_head out"
            )

    def for_family(self, family: LoraFamily) -> TrainOptions:
        """Return the options with the target modules filled in for a base model of `family`: those named by
        the user, all linear modules, or the family's usual ones.
        """
        if ALL_LINEAR in (self.target_modules or ()):
            every = dict.fromkeys(target.path.rpartition(".")[2] for target in family.targets)
            return replace(self, target_modules=tuple(every))
        return self if self.target_modules else replace(self, target_modules=family.usual)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the modules that get a LoRA, sorted. Raises `OptionError` if neither the user nor
        `for_family` has set them.
        """
        if not self.target_modules:
            raise OptionError(
                "target_modules",
                "the base model's usual modules are not known here; name the modules, such as q_proj",
            )
        return tuple(sorted(self.target_modules))

    def to_json(self) -> dict[str, Any]:
        """Return the options as a JSON object, to write them to records and compute digests of them."""
        return {**asdict(self), "target_modules": list(self.targets)}


def check_finite(options: Any) -> None:
    """Raise `OptionError` if a float in the dataclass `options` is infinite or NaN. NaN would pass checks
    such as `value < 0`.
    """
    for item in fields(options):
        value = getattr(options, item.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionError(item.name, f"{value:g} is not a finite number; give an ordinary number")

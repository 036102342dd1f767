"""Options of a training run. The command line's flags come from these fields. Imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from adapters import names
from adapters.lora.families import LoraFamily

ScheduleName = Literal["linear", "cosine", "constant", "constant_with_warmup"]
TrainPrecision = Literal["auto", "bf16", "fp32"]

ALL_LINEAR = "all-linear"
"""PEFT's word for every linear module of the base."""


class OptionError(ValueError):
    """An option has an invalid value. The message names the option, the value and a valid choice."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Everything that decides the result of a run, except the base and the data. Raises `OptionError`."""

    language: str
    """Language of the answers, as an ISO 639-1 code such as sv. Any language that routing can detect is
    allowed.
    """
    epochs: float = 3.0
    """Number of passes over the examples. Early stopping may end training before."""
    batch_size: int = 8
    """Examples per step on each device."""
    gradient_accumulation: int = 1
    """Steps whose gradients add up to one update."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW."""
    schedule: ScheduleName = "linear"
    """The schedule by which the learning rate falls."""
    warmup: float = 0.0
    """Updates over which the learning rate rises: below 1, a share of all updates; otherwise a number."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """Largest gradient norm; larger ones are scaled down."""
    rank: int = 8
    """Rank of the LoRA matrices."""
    alpha: int = 32
    """Scale of the LoRA: its update is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout before the LoRA, from 0 to below 1."""
    target_modules: tuple[str, ...] | None = None
    """Modules that get a LoRA; all-linear means every linear module. Default: the base's usual ones, such as
    q_proj.
    """
    max_length: int = 1024
    """Maximum number of tokens of one example. Longer examples are left out and counted."""
    held_out: float = 0.1
    """Share of the examples, from 0 to 0.5, that are held out to decide when to stop."""
    early_stop: int = 3
    """Stop after this many epochs without a lower loss on held-out examples; 0 never stops early."""
    seed: int = 42
    """Seed of the split, the LoRA's first values, the order of examples and dropout."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: needs less memory and about a fifth more time."""
    precision: TrainPrecision = "auto"
    """Number format to compute in. auto uses bf16 if the hardware supports it."""
    load_in_4bit: bool = False
    """Hold the base in 4 bits (QLoRA). Needs an NVIDIA GPU and bitsandbytes."""

    def __post_init__(self) -> None:
        check_finite(self)
        try:
            names.language(self.language)
        except ValueError as error:
            raise OptionError("language", str(error)) from None
        for name in ("batch_size", "gradient_accumulation", "rank", "alpha"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)} is too small; use at least 1")
        for name in ("epochs", "learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise OptionError(name, f"{getattr(self, name):g} is too small; use more than 0")
        if not 0 <= self.dropout < 1:
            raise OptionError("dropout", f"{self.dropout:g} is out of range; use from 0 to below 1")
        if self.warmup < 0 or (self.warmup > 1 and not self.warmup.is_integer()):
            problem = f"{self.warmup:g} is out of range; use a share below 1, or a whole number of updates"
            raise OptionError("warmup", problem)
        for name in ("weight_decay", "early_stop", "seed"):
            if getattr(self, name) < 0:
                raise OptionError(name, f"{getattr(self, name)} is negative; use 0 or more")
        if self.max_length < 8:
            raise OptionError("max_length", f"{self.max_length} is too small; use at least 8")
        if not 0 <= self.held_out <= 0.5:
            raise OptionError("held_out", f"{self.held_out:g} is out of range; use from 0 to 0.5")
        if self.target_modules == ():
            raise OptionError(
                "target_modules", "does not name any module; leave it out to use the base's usual ones"
            )
        if "lm_head" in (self.target_modules or ()):
            raise OptionError(
                "target_modules", "holds lm_head, whose LoRA would never be trained; leave it out"
            )

    def for_family(self, family: LoraFamily) -> TrainOptions:
        """Return the options with target modules decided: the named ones, or the usual or all ones of
        `family`.
        """
        if ALL_LINEAR in (self.target_modules or ()):
            every = dict.fromkeys(target.path.rpartition(".")[2] for target in family.targets)
            return replace(self, target_modules=tuple(every))
        return self if self.target_modules else replace(self, target_modules=family.usual)

    @property
    def targets(self) -> tuple[str, ...]:
        """Modules that get a LoRA, sorted. Raises `OptionError` if `for_family` has not decided them."""
        if not self.target_modules:
            raise OptionError(
                "target_modules", "is auto, which is only decided once the base is known; name the modules"
            )
        return tuple(sorted(self.target_modules))

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON, for digests and records."""
        return {**asdict(self), "target_modules": list(self.targets)}


def check_finite(options: Any) -> None:
    """Raise `OptionError` if a float in the dataclass `options` is inf or NaN. NaN passes bounds checks."""
    for item in fields(options):
        value = getattr(options, item.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionError(item.name, f"{value:g} is not a finite number")

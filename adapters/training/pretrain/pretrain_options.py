"""Options of `oneseek train scratch` and `oneseek train continue`. Flags come from these fields. Imports
nothing heavy.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from adapters.numerals import parse_number
from adapters.training.loop.options import OptionError, TrainPrecision, check_finite
from adapters.training.loop.schedule import Phase, Schedule

MAX_THREADS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainOptions:
    """The `training` section: all options but model, tokenizer and data. Raises `OptionError`."""

    steps: int | None = None
    """Number of weight updates. You can give tokens instead."""
    tokens: int | None = None
    """Number of tokens to train on. You can give steps instead."""
    batch_size: int = 32
    """Rows of tokens in one step, over all devices together."""
    sequence_length: int = 1024
    """Number of tokens in each row of a batch."""
    micro_batch_size: int | None = None
    """Maximum number of rows that a device computes at once, with gradients added up. Default: its whole
    share.
    """
    optimizer: Literal["muon", "adamw"] = "adamw"
    """muon: Muon for the inner matrices, AdamW for the rest. adamw: AdamW for all, as FSDP needs."""
    learning_rate: float = 2e-5
    """Peak learning rate of AdamW."""
    matrix_learning_rate: float = 4e-3
    """Peak learning rate of Muon."""
    warmup: int = 50
    """Steps over which the learning rates rise."""
    decay: float = 0.4
    """Last share of the steps, over which the learning rates fall to zero."""
    weight_decay: float = 0.05
    """Weight decay of the matrices."""
    max_grad_norm: float = 1.0
    """Largest gradient norm; larger ones are scaled down."""
    seed: int = 42
    """Random seed for new weights, the order of documents and their mixture."""
    shuffle: int = 16 << 20
    """Bytes of text per corpus that are held in memory for shuffling."""
    held_out: float = 0.005
    """Share of the documents that are held out, from 0 to 0.5. A hash of each document decides."""
    held_out_rows: int = 64
    """Maximum number of held-out rows to measure the loss on."""
    judge_every: int = 250
    """Steps between measurements of the held-out loss."""
    save_every: float = 600.0
    """Seconds between two checkpoints."""
    precision: TrainPrecision = "auto"
    """Number format to compute in. auto uses bf16 if the hardware supports it. Weights in training are
    float32.
    """
    saved_as: Literal["bf16", "fp32"] = "bf16"
    """Number format of the saved weights."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: needs less memory and about a third more time."""
    compiled: bool = False
    """Compile the model if a compiler is installed."""
    threads: int | None = None
    """CPU threads to compute with. Default: measure the fastest number when the run begins."""

    def __post_init__(self) -> None:
        check_finite(self)
        if (self.steps is None) == (self.tokens is None):
            raise OptionError("steps", "set either steps or tokens, to say how long to train")
        for name in ("steps", "tokens", "batch_size", "micro_batch_size", "held_out_rows", "judge_every"):
            value: int | None = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(name, f"{value} is too small; use at least 1")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise OptionError("threads", f"{self.threads} is out of range; use from 1 to {MAX_THREADS}")
        for name in ("learning_rate", "matrix_learning_rate", "max_grad_norm", "shuffle"):
            if getattr(self, name) <= 0:
                raise OptionError(name, f"{getattr(self, name):g} is too small; use more than 0")
        for name in ("warmup", "weight_decay", "seed", "save_every"):
            if getattr(self, name) < 0:
                raise OptionError(name, f"{getattr(self, name)} is negative; use 0 or more")
        if not 0 < self.decay <= 1:
            raise OptionError("decay", f"{self.decay:g} is out of range; use more than 0 and at most 1")
        if self.sequence_length < 8:
            raise OptionError("sequence_length", f"{self.sequence_length} is too small; use at least 8")
        if not 0 <= self.held_out <= 0.5:
            raise OptionError("held_out", f"{self.held_out:g} is out of range; use from 0 to 0.5")

    def schedule(self, phases: tuple[Phase, ...]) -> Schedule:
        """Return the schedule. `tokens` are converted to the number of steps that see as many."""
        steps = self.steps
        if steps is None:
            assert self.tokens is not None
            share, before = 0.0, 0.0
            for phase in phases:
                share += (phase.until - before) * phase.rows * phase.length
                before = phase.until
            steps = math.ceil(self.tokens / share)
        return Schedule(
            steps=steps,
            matrix_rate=self.matrix_learning_rate,
            rate=self.learning_rate,
            warmup=self.warmup,
            decay=self.decay,
            weight_decay=self.weight_decay,
            clip=self.max_grad_norm,
            compiled=self.compiled,
        )

    @property
    def shaping(self) -> dict[str, Any]:
        """Return the options that decide the result, as JSON. The others only affect how it is computed."""
        how = ("save_every", "micro_batch_size", "gradient_checkpointing", "compiled", "threads")
        return {name: value for name, value in asdict(self).items() if name not in how}


SCRATCH: Mapping[str, object] = {"optimizer": "muon", "learning_rate": 3e-3}
"""Defaults that differ if training begins from nothing."""


@dataclass(frozen=True, slots=True)
class DataPart:
    """A corpus, given by its path."""

    path: str
    weight: float = 1.0

    @classmethod
    def read(cls, text: str) -> DataPart:
        """Parse a corpus of the form `PATH` or `PATH=WEIGHT`."""
        path, equals, weight = text.rpartition("=")
        if not equals:
            return cls(text)
        try:
            found = parse_number(weight)
        except ValueError:
            return cls(text)
        return cls(path, _weight(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainPlan:
    """The sections of a `--config` file. The `training` section is not typed yet."""

    model: Mapping[str, Any] | None = None
    """The architecture, with transformers' names."""
    tokenizer: Mapping[str, Any] | None = None
    """`vocabulary` to train a tokenizer of that size, or `folder` to use an existing one."""
    training: Mapping[str, Any]
    phases: tuple[Phase, ...] = ()
    """Replaces the batch size and sequence length by several, each for a part of the run."""
    data: tuple[DataPart, ...] = ()


_SECTIONS = ("model", "tokenizer", "training", "data")
_NAMES = tuple(item.name for item in fields(PretrainOptions))


def read_plan(path: Path, *, scratch: bool) -> PretrainPlan:
    """Read the sections of the YAML file `path`. Raises `OptionError` naming what is unknown, and
    `OSError`.
    """
    try:
        found: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = str(error).replace("\n", " ")
        raise OptionError("config", f"{path} is not valid YAML: {problem}") from error
    sections = _mapping("config", found)
    known = _SECTIONS if scratch else _SECTIONS[2:]
    for name in sections:
        if name not in known:
            why = "; only train scratch has it" if name in _SECTIONS else near(name, known)
            raise OptionError(name, f"is not a section here{why}; the sections are {', '.join(known)}")
    training = dict(_mapping("training", sections.get("training") or {}))
    phases = training.pop("phases", None)
    for name in training:
        if name not in _NAMES:
            raise OptionError(f"training.{name}", f"is not an option{near(name, (*_NAMES, 'phases'))}")
    return PretrainPlan(
        model=_mapping("model", sections["model"]) if "model" in sections else None,
        tokenizer=_mapping("tokenizer", sections["tokenizer"]) if "tokenizer" in sections else None,
        training=training,
        phases=_phases(phases) if phases is not None else (),
        data=_data(sections.get("data") or ()),
    )


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint with the closest known name, if there is one."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def _mapping(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise OptionError(name, "does not hold a mapping of names to values")
    return {str(key): item for key, item in cast("dict[object, Any]", value).items()}


def _phases(value: object) -> tuple[Phase, ...]:
    """Read `[{until, batch_size, sequence_length}, …]`. The last `until` must be 1."""
    if not isinstance(value, list) or not value:
        raise OptionError("training.phases", "is not a list of phases")
    found: list[Phase] = []
    for number, entry in enumerate(cast("list[object]", value)):
        name = f"training.phases[{number}]"
        about = _mapping(name, entry)
        wanted = {"until", "batch_size", "sequence_length"}
        if about.keys() != wanted:
            raise OptionError(name, f"has {', '.join(about)}; it needs {', '.join(sorted(wanted))}")
        until, rows, length = about["until"], about["batch_size"], about["sequence_length"]
        before = found[-1].until if found else 0.0
        if not isinstance(until, int | float) or not before < until <= 1:
            raise OptionError(f"{name}.until", f"{until!r} is not above {before:g} and at most 1")
        if not all(type(size) is int and size >= low for size, low in ((rows, 1), (length, 8))):
            raise OptionError(name, "needs a batch_size of at least 1 and a sequence_length of at least 8")
        found.append(Phase(until=float(until), rows=rows, length=length))
    if found[-1].until != 1:
        raise OptionError("training.phases", "the last phase must last until 1, the end of the run")
    return tuple(found)


def _data(value: object) -> tuple[DataPart, ...]:
    entries = cast("list[object]", value) if isinstance(value, list | tuple) else [value]
    found: list[DataPart] = []
    for number, entry in enumerate(entries):
        if isinstance(entry, str):
            found.append(DataPart.read(entry))
            continue
        about = _mapping(f"data[{number}]", entry)
        for key in about:
            if key not in ("path", "weight"):
                raise OptionError(f"data[{number}].{key}", "is not known; a corpus has path and weight")
        if not isinstance(about.get("path"), str):
            raise OptionError(f"data[{number}].path", "is missing; name a file or a folder")
        weight = about.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise OptionError(f"data[{number}].weight", f"{weight!r} is not a number")
        found.append(DataPart(about["path"], _weight(weight)))
    return tuple(found)


def _weight(value: float) -> float:
    if not 0 < value < math.inf:
        raise OptionError("data", f"weight {value:g} is out of range; use more than 0")
    return float(value)

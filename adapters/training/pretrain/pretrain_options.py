"""Options of `oneseek train scratch` and `oneseek train continue`. The command line's flags are generated
from these fields, so this module imports no heavy library.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from adapters.files.yamlfile import load_yaml
from adapters.numerals import parse_number
from adapters.training.loop.options import OptionError, TrainPrecision, check_finite
from adapters.training.loop.schedule import Phase, Schedule

MAX_THREADS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainOptions:
    """The options in the `training` section of a configuration file. Model, tokenizer and data have sections
    of their own. Raises `OptionError` for invalid values.
    """

    steps: int | None = None
    """Number of weight updates. Give either steps or tokens."""
    tokens: int | None = None
    """Number of tokens to train on. Give either steps or tokens."""
    batch_size: int = 32
    """Number of sequences in the batch of one step, over all devices together."""
    sequence_length: int = 1024
    """Number of tokens in each sequence of a batch."""
    micro_batch_size: int | None = None
    """Maximum number of sequences that a device computes at once; gradients are added up over such
    micro-batches. Default: the device's whole part of the batch.
    """
    optimizer: Literal["muon", "adamw"] = "adamw"
    """Optimizer. muon: Muon for the matrices inside the layers, AdamW for the other weights. adamw: AdamW for
    all weights, which FSDP needs.
    """
    learning_rate: float = 2e-5
    """Peak learning rate of the AdamW optimizer."""
    matrix_learning_rate: float = 4e-3
    """Peak learning rate of the Muon optimizer."""
    warmup: int = 50
    """Number of steps over which the learning rates rise to their peaks."""
    decay: float = 0.4
    """Fraction of the steps, at the end, over which the learning rates fall to zero."""
    weight_decay: float = 0.05
    """Weight decay of the weight matrices."""
    max_grad_norm: float = 1.0
    """Maximum norm of the gradient. A larger gradient is scaled down to this norm."""
    seed: int = 42
    """Random seed of new weights, of the order of documents, and of the mixture of corpora."""
    shuffle: int = 16 << 20
    """Amount of text of each corpus, in bytes, that is held in memory to shuffle its documents."""
    held_out: float = 0.005
    """Fraction of the documents, from 0 to 0.5, that are held out for evaluation. A hash of each document
    decides if it is held out.
    """
    held_out_rows: int = 64
    """Maximum number of held-out sequences on which the loss is measured."""
    judge_every: int = 250
    """Number of steps between two measurements of the held-out loss."""
    save_every: float = 600.0
    """Seconds between two checkpoints."""
    precision: TrainPrecision = "auto"
    """Number format to compute in: bf16, fp32, or auto, which uses bf16 if the hardware supports it. The
    weights are kept in float32 during training.
    """
    saved_as: Literal["bf16", "fp32"] = "bf16"
    """Number format of the weights in the saved base model."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass. This saves memory and takes about a third more time."""
    compiled: bool = False
    """Compile the model if a C++ compiler is installed. This makes training faster."""
    threads: int | None = None
    """Number of CPU threads to compute with. Default: measure which number is fastest when the run begins."""

    def __post_init__(self) -> None:
        check_finite(self)
        if (self.steps is None) == (self.tokens is None):
            raise OptionError("steps", "give either steps or tokens, not both, to set the length of training")
        for name in ("steps", "tokens", "batch_size", "micro_batch_size", "held_out_rows", "judge_every"):
            value: int | None = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(name, f"{value} is too small for this option; use at least 1")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise OptionError("threads", f"{self.threads} is out of range; use 1 to {MAX_THREADS} threads")
        for name in ("learning_rate", "matrix_learning_rate", "max_grad_norm", "shuffle"):
            if getattr(self, name) <= 0:
                raise OptionError(
                    name, f"{getattr(self, name):g} is too small for this option; use more than 0"
                )
        for name in ("warmup", "weight_decay", "seed", "save_every"):
            if getattr(self, name) < 0:
                raise OptionError(
                    name,
                    f"{getattr(self, name)} is negative, which this option does not allow; use 0 or more",
                )
        if not 0 < self.decay <= 1:
            raise OptionError(
                "decay", f"{self.decay:g} is out of range; use a fraction of the steps above 0, up to 1"
            )
        if self.sequence_length < 8:
            raise OptionError(
                "sequence_length", f"{self.sequence_length} is too small; use at least 8 tokens"
            )
        if not 0 <= self.held_out <= 0.5:
            raise OptionError(
                "held_out", f"{self.held_out:g} is out of range; hold out a fraction from 0 to 0.5"
            )

    def schedule(self, phases: tuple[Phase, ...]) -> Schedule:
        """Return the schedule of the run. If the user gave a number of tokens, convert it to the number of
        steps that process as many.
        """
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
        """The options that decide the result of the run, as JSON. Options that affect only speed, memory and
        checkpoints are left out.
        """
        how = ("save_every", "micro_batch_size", "gradient_checkpointing", "compiled", "threads")
        return {name: value for name, value in asdict(self).items() if name not in how}


SCRATCH: Mapping[str, object] = {"optimizer": "muon", "learning_rate": 3e-3}
"""The options whose defaults in `train scratch`, which trains from random weights, differ from those in
`train continue`, with their defaults.
"""


@dataclass(frozen=True, slots=True)
class DataPart:
    """A text corpus, given by its path, and its weight in the mixture of corpora."""

    path: str
    weight: float = 1.0

    @classmethod
    def read(cls, text: str) -> DataPart:
        """Parse a corpus that is given as `PATH` or `PATH=WEIGHT`."""
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
    """The sections of the `--config` file of a pretraining run. The values in the `training` section are not
    checked yet.
    """

    model: Mapping[str, Any] | None = None
    """The architecture of the new base model, with the field names of transformers' config."""
    tokenizer: Mapping[str, Any] | None = None
    """The tokenizer: `vocabulary` to train a new one of that size, or `folder` to use an existing one."""
    training: Mapping[str, Any]
    phases: tuple[Phase, ...] = ()
    """Phases of the run, each with its own batch size and sequence length. They replace the options
    batch_size and sequence_length.
    """
    data: tuple[DataPart, ...] = ()


_SECTIONS = ("model", "tokenizer", "training", "data")
_NAMES = tuple(item.name for item in fields(PretrainOptions))


def read_plan(path: Path, *, scratch: bool) -> PretrainPlan:
    """Read the sections of the YAML file `path`. Raises `OptionError` that names the unknown or invalid
    entry, and `OSError`.
    """
    try:
        found: object = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = str(error).replace("\n", " ")
        raise OptionError("config", f"the file {path} is not valid YAML: {problem}") from error
    sections = _mapping("config", found)
    known = _SECTIONS if scratch else _SECTIONS[2:]
    for name in sections:
        if name not in known:
            why = "; only train scratch has it" if name in _SECTIONS else near(name, known)
            raise OptionError(
                name, f"the file cannot have a section of this name{why}; the sections are {', '.join(known)}"
            )
    training = dict(_mapping("training", sections.get("training") or {}))
    phases = training.pop("phases", None)
    for name in training:
        if name not in _NAMES:
            raise OptionError(
                f"training.{name}", f"there is no option of this name{near(name, (*_NAMES, 'phases'))}"
            )
    return PretrainPlan(
        model=_mapping("model", sections["model"]) if "model" in sections else None,
        tokenizer=_mapping("tokenizer", sections["tokenizer"]) if "tokenizer" in sections else None,
        training=training,
        phases=_phases(phases) if phases is not None else (),
        data=_data(sections.get("data") or ()),
    )


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint such as `; did you mean steps?` with the known name most similar to `name`. Return empty
    text if no name is similar.
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def _mapping(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise OptionError(name, "this entry must be a YAML mapping of names to values")
    return {str(key): item for key, item in cast("dict[object, Any]", value).items()}


def _phases(value: object) -> tuple[Phase, ...]:
    """Read the phases of a run from a list of objects with the fields `until`, `batch_size` and
    `sequence_length`. Raises `OptionError`, also if the last `until` is not 1.
    """
    if not isinstance(value, list) or not value:
        raise OptionError("training.phases", "give a list of at least one phase")
    found: list[Phase] = []
    for number, entry in enumerate(cast("list[object]", value)):
        name = f"training.phases[{number}]"
        about = _mapping(name, entry)
        wanted = {"until", "batch_size", "sequence_length"}
        if about.keys() != wanted:
            raise OptionError(
                name, f"the phase has the fields {', '.join(about)}; it needs {', '.join(sorted(wanted))}"
            )
        until, rows, length = about["until"], about["batch_size"], about["sequence_length"]
        before = found[-1].until if found else 0.0
        if not isinstance(until, int | float) or not before < until <= 1:
            raise OptionError(
                f"{name}.until", f"{until!r} is out of range; give a fraction above {before:g}, up to 1"
            )
        if not all(type(size) is int and size >= low for size, low in ((rows, 1), (length, 8))):
            raise OptionError(
                name, "the phase needs a batch_size of at least 1 and a sequence_length of at least 8"
            )
        found.append(Phase(until=float(until), rows=rows, length=length))
    if found[-1].until != 1:
        raise OptionError("training.phases", "the last phase must have until: 1, which is the end of the run")
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
                raise OptionError(
                    f"data[{number}].{key}", "the field is unknown; a corpus has the fields path and weight"
                )
        if not isinstance(about.get("path"), str):
            raise OptionError(
                f"data[{number}].path", "the path of this corpus is missing; name a file or a folder"
            )
        weight = about.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise OptionError(
                f"data[{number}].weight",
                f"the weight {weight!r} of this corpus is not a number; give a number above 0",
            )
        found.append(DataPart(about["path"], _weight(weight)))
    return tuple(found)


def _weight(value: float) -> float:
    if not 0 < value < math.inf:
        raise OptionError("data", f"the weight {value:g} of a corpus is out of range; use more than 0")
    return float(value)

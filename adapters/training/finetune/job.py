"""A run that was asked for, and how it can end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adapters.evaluation.report import IdentityReport
from adapters.training.finetune.curve import terminal_lines
from adapters.training.finetune.data_origin import Origin
from adapters.training.finetune.finetune import FinetuneRun
from adapters.training.loop.options import TrainOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneJob:
    """A run, asked for."""

    options: TrainOptions
    base: Path
    base_name: str
    base_digest: str
    dataset: tuple[Path, ...]
    alias: str
    version: str
    folder: Path
    """Where unfinished runs are kept."""
    resume: bool | None = False
    """Whether to go on with an interrupted run; None does so where there is one."""
    teacher: str | None = None
    """A model that writes further answers: `http://HOST:PORT#MODEL`, or a folder."""
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """What a run made."""

    folder: Path
    """In PEFT layout, with oneseek.json and a card; in the run's work folder."""
    report: Path
    """loss.png and report.json; in the run's work folder."""
    work: Path
    """To be removed once the rest is taken."""
    run: FinetuneRun
    before: IdentityReport
    """The base."""
    after: IdentityReport
    """The adapter."""
    metrics: Mapping[str, float]
    config_digest: str
    dataset_digest: str
    teacher_digest: str | None
    """Of the file with what a teacher wrote."""

    @property
    def curve_lines(self) -> list[str]:
        """The loss curve for a terminal."""
        return terminal_lines(self.run.curve)


@dataclass(frozen=True, slots=True)
class FinetuneInterrupted:
    """A run that was interrupted; its checkpoint is kept."""

    step: int
    planned: int
    work: Path


@dataclass(frozen=True, slots=True)
class HelperProcess:
    """This process helped; another one writes what was made."""

"""A run that was asked for, and how it can end. Light: imported before torch is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.evaluation.report import IdentityReport
from adapters.training.finetune.curve import terminal_lines
from adapters.training.finetune.data_origin import Origin
from adapters.training.loop.launch import ALONE, Launch
from adapters.training.loop.options import TrainOptions

if TYPE_CHECKING:
    from adapters.training.finetune.finetune import FinetuneRun


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
    questions: tuple[str, ...] | None = None
    """What the base and the adapter are asked and judged by; None takes the questions that are held out."""
    active: tuple[str, Path] | None = None
    """Full name and folder of the version that the alias stands for now, to compare with."""
    teacher: str | None = None
    """A model that writes further answers: `http://HOST:PORT#MODEL`, or a folder."""
    teacher_option: str = "teacher"
    """The option that named it, for errors."""
    teacher_key: str | None = field(default=None, repr=False)
    """The key of its server; recorded nowhere."""
    origin: Origin = field(default_factory=Origin)
    threads: int | None = None
    """Threads to compute with on a CPU; None measures which number is quickest."""
    launch: Launch = ALONE
    """How this process of it was started."""


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
    active: IdentityReport | None
    """The version that the alias stood for, if there is one."""
    metrics: Mapping[str, float]
    config_digest: str
    dataset_digest: str
    teacher_digest: str | None
    """Of the file with what a teacher wrote."""

    @property
    def failing(self) -> str | None:
        """Why it is not worth a version: it diverged, or it scores no better than the base; else None."""
        if self.run.diverged:
            return "training diverged (its loss rose, or is not a number); lower --learning-rate"
        if not self.after.questions or sum(self.after.identity) > sum(self.before.identity):
            return None
        scored = (
            f"{sum(self.after.identity)} of {len(self.after.questions)}, the base {sum(self.before.identity)}"
        )
        return f"it scores no better than the base ({scored})"

    @property
    def worse_than_active(self) -> bool:
        """Whether the version that the alias stood for answered more of the questions as OneSeek."""
        return self.active is not None and sum(self.after.identity) < sum(self.active.identity)

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

"""A requested run and its possible results. Imported before torch is, so it imports nothing heavy."""

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
    """A training run that the user requested."""

    options: TrainOptions
    base: Path
    base_name: str
    base_digest: str
    dataset: tuple[Path, ...]
    alias: str
    version: str
    folder: Path
    """The folder that keeps unfinished runs."""
    resume: bool | None = False
    """True: continue an interrupted run. False: start a new one. None: continue if there is one."""
    questions: tuple[str, ...] | None = None
    """Questions to evaluate the base and the adapter with. None: the held-out questions."""
    active: tuple[str, Path] | None = None
    """Full name and folder of the alias's active version, to compare with. None if there is none."""
    teacher: str | None = None
    """Model that writes additional answers: `http://HOST:PORT#MODEL`, or a folder. None: no additional
    answers.
    """
    teacher_option: str = "teacher"
    """The option that named the teacher, for use in errors."""
    teacher_key: str | None = field(default=None, repr=False)
    """API key for the teacher's server. It is never recorded."""
    origin: Origin = field(default_factory=Origin)
    threads: int | None = None
    """CPU threads to compute with. None: measure which number is fastest."""
    launch: Launch = ALONE
    """The number of this process, and how many processes there are, as the launcher set them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """The results of a training run."""

    folder: Path
    """Adapter in PEFT layout with oneseek.json and a card, in the run's work folder."""
    report: Path
    """Folder with loss.png and report.json, in the run's work folder."""
    work: Path
    """Work folder. Delete it when you have moved the results."""
    run: FinetuneRun
    before: IdentityReport
    """Identity evaluation of the base."""
    after: IdentityReport
    """Identity evaluation of the trained adapter."""
    active: IdentityReport | None
    """Evaluation of the alias's active version. None if there is none."""
    metrics: Mapping[str, float]
    config_digest: str
    dataset_digest: str
    teacher_digest: str | None
    """Digest of the file with the teacher's answers."""

    @property
    def failing(self) -> str | None:
        """Why the adapter should not become a version: it diverged, or scores no better than the base. None
        if it should.
        """
        if self.run.diverged:
            return "training diverged (the loss rose, or is not a number); lower --learning-rate"
        if not self.after.questions or sum(self.after.identity) > sum(self.before.identity):
            return None
        scored = (
            f"{sum(self.after.identity)} of {len(self.after.questions)}, the base {sum(self.before.identity)}"
        )
        return f"it scores no better than the base ({scored})"

    @property
    def worse_than_active(self) -> bool:
        """True if the alias's active version answered more of the questions as OneSeek."""
        return self.active is not None and sum(self.after.identity) < sum(self.active.identity)

    @property
    def curve_lines(self) -> list[str]:
        """The loss curve for a terminal."""
        return terminal_lines(self.run.curve)


@dataclass(frozen=True, slots=True)
class FinetuneInterrupted:
    """The run was interrupted. Its checkpoint is kept."""

    step: int
    planned: int
    work: Path


@dataclass(frozen=True, slots=True)
class HelperProcess:
    """The result in a process that only helped in a run; another process writes the results."""

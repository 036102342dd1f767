"""The request for a LoRA training run, and its possible results. This module is imported before torch, so it
imports no heavy library.
"""

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
    """A LoRA training run as the user requested it: options, base model, data, and the adapter's name."""

    options: TrainOptions
    base: Path
    base_name: str
    base_digest: str
    dataset: tuple[Path, ...]
    alias: str
    version: str
    folder: Path
    """Folder that holds the work folders of unfinished runs."""
    resume: bool | None = False
    """True: continue an interrupted run. False: start a new run. None: continue an interrupted run if there
    is one, else start a new run.
    """
    questions: tuple[str, ...] | None = None
    """Questions to evaluate the base model and the adapter with. None: the questions of the held-out
    conversations.
    """
    active: tuple[str, Path] | None = None
    """Full name and folder of the currently active version of the adapter, which the new version is compared
    with. None if no version is active.
    """
    teacher: str | None = None
    """Teacher model that writes additional answers: `http://HOST:PORT#MODEL`, or a folder. None: no
    additional answers.
    """
    teacher_option: str = "teacher"
    """Name of the option that chose the teacher, for error messages."""
    teacher_key: str | None = field(default=None, repr=False)
    """API key for the teacher's server. It is never written to records."""
    origin: Origin = field(default_factory=Origin)
    threads: int | None = None
    """Number of CPU threads to compute with. None: measure which number is fastest."""
    launch: Launch = ALONE
    """How a launcher, such as `accelerate launch`, started this process: its number, and the number of
    processes in the run.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """The results of a finished LoRA training run."""

    folder: Path
    """Folder of the adapter in PEFT format, with oneseek.json and a model card. It lies in the work
    folder.
    """
    report: Path
    """Folder of the report, with loss.png and report.json. It lies in the work folder."""
    work: Path
    """The run's work folder. Delete it after moving the adapter and the report out of it."""
    run: FinetuneRun
    before: IdentityReport
    """Identity evaluation of the base model without the adapter."""
    after: IdentityReport
    """Identity evaluation of the base model with the trained adapter."""
    active: IdentityReport | None
    """Identity evaluation of the currently active version of the adapter. None if no version is active."""
    metrics: Mapping[str, float]
    config_digest: str
    dataset_digest: str
    teacher_digest: str | None
    """Digest of the file with the teacher's answers. None without a teacher."""

    @property
    def failing(self) -> str | None:
        """The reason why the adapter should not be added to the registry as a version: the training diverged,
        or the adapter scores no better than the base model. None if it should be added.
        """
        if self.run.diverged:
            return "the training diverged (the loss rose, or is not a number); lower --learning-rate"
        if not self.after.questions or sum(self.after.identity) > sum(self.before.identity):
            return None
        return (
            "the adapter scores no better than the base model: it answers "
            f"{sum(self.after.identity)} of {len(self.after.questions)} identity questions as OneSeek, and "
            "the "
            f"base {sum(self.before.identity)}"
        )

    @property
    def worse_than_active(self) -> bool:
        """True if the currently active version of the adapter answered more of the questions as OneSeek than
        the new version did.
        """
        return self.active is not None and sum(self.after.identity) < sum(self.active.identity)

    @property
    def curve_lines(self) -> list[str]:
        """The loss curve as lines of text for a terminal."""
        return terminal_lines(self.run.curve)


@dataclass(frozen=True, slots=True)
class FinetuneInterrupted:
    """An interrupted LoRA training run: its last step, the planned number of steps, and the folder with its
    checkpoint.
    """

    step: int
    planned: int
    work: Path


@dataclass(frozen=True, slots=True)
class HelperProcess:
    """The result in a process that helped to train but does not write the results. Another process of the run
    writes them.
    """

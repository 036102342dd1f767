"""Options that the command line passes to the jobs behind `train` and `distill`, such as files, folders and
names, besides the options of the training itself, such as the learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapters.training.pretrain.pretrain_options import DataPart, PretrainPlan
from server.config.values import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """The options of a training that are not in `TrainOptions`: names, files and folders."""

    base_model: Path | None = None
    """Folder of the base in Hugging Face layout; default: search the standard locations."""
    dataset: tuple[str, ...] = ()
    """Training data: JSON lines in any format that `oneseek data check` reads. Default: OneSeek's own (en,
    sv).
    """
    teacher: str | None = None
    """Teacher that writes more answers: http://HOST:PORT/v1 of an OpenAI-compatible server, or the folder of
    a Hugging Face model, or its name in models/.
    """
    external_model: str | None = None
    """Old name of the option --teacher, with the same meaning."""
    teacher_model: str | None = None
    """Name of the model at the teacher's server, which can also be in the URL as #MODEL. Default: its first
    model.
    """
    teacher_key_env: str | None = None
    """Environment variable that holds the API key of the teacher's server."""
    questions: Path | None = None
    """File of evaluation questions, one per line. Default: OneSeek's own, else those held out from the
    data.
    """
    alias: str | None = None
    """Public name of the adapter. Default: made from the base and the language."""
    version: str | None = None
    """Version of the adapter, such as v1.1. Default: the next free one."""
    output: Path | None = None
    """New folder for the adapter, instead of a version in the registry."""
    threads: int | None = None
    """Threads to compute with on a CPU. Default: the fastest number, measured at the start."""
    force: bool = False
    """Make a version even if the adapter diverged or scores no better than the base."""


def teacher_named(asked: TrainRequest | DistillSource) -> tuple[str, str] | None:
    """Return the name of the option that gives the teacher, and its value. None if there is no teacher.

    Raises `SettingsError` if both --teacher and its old name are used.
    """
    if asked.teacher is not None and asked.external_model is not None:
        raise SettingsError(
            "external_model", "this option means the same as --teacher; remove one of the two"
        )
    if asked.external_model is not None:
        return "external_model", asked.external_model
    return None if asked.teacher is None else ("teacher", asked.teacher)


PretrainKind = Literal["scratch", "continue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRequest:
    """A request for a pre-training: the contents of its config file (`plan`), its training data and its
    folders. The checked options of the training itself are in `PretrainOptions`.
    """

    kind: PretrainKind
    plan: PretrainPlan
    data: tuple[DataPart, ...]
    output: Path
    base_model: Path | None
    resume: bool
    json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSource:
    """The files and models of a distillation: teacher, judge, prompts, and the folder for the data set."""

    teacher: str | None = None
    """Teacher: http://HOST:PORT/v1 of an OpenAI-compatible server, the folder of a Hugging Face model, or its
    name in models/.
    """
    external_model: str | None = None
    """Old name of the option --teacher, with the same meaning."""
    teacher_model: str | None = None
    """Name of the model at the teacher's server, which can also be in the URL as #MODEL. Default: its first
    model.
    """
    teacher_key_env: str | None = None
    """Environment variable that holds the API key of the teacher's server."""
    judge: str | None = None
    """Model that grades each example, written like --teacher. Default: no grading."""
    judge_model: str | None = None
    """Name of the model at the judge's server. Default: the server's first model."""
    judge_key_env: str | None = None
    """Environment variable that holds the API key of the judge's server."""
    seeds: tuple[str, ...] = ()
    """Data sets to take prompts from, or .txt files with one prompt per line. Default: OneSeek's own."""
    output: Path | None = None
    """Folder for the data set, its journal and its report. Default: named after teacher and prompts."""
    dataset: tuple[str, ...] = ()
    """More data sets to train the student on, besides the teacher's answers."""

"""What the verbs ask of the long jobs, beside a run's own options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adapters.training.pretrain.pretrain_options import DataPart, PretrainPlan
from server.config.values import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What a run is asked for beside its `TrainOptions`."""

    base_model: Path | None = None
    """Folder of the base in Hugging Face layout; none looks in the usual places."""
    dataset: tuple[str, ...] = ()
    """JSON lines in any shape of `oneseek data check`. Default: OneSeek's own, in English and Swedish."""
    teacher: str | None = None
    """A teacher that writes further answers: http://HOST:PORT/v1 of any server that speaks OpenAI's API, or
    the folder of a Hugging Face model, or its name in models/."""
    external_model: str | None = None
    """Another name of --teacher, as existing installations have it."""
    teacher_model: str | None = None
    """Which of the server's models to ask; http://HOST:PORT#MODEL says the same. Default: its first."""
    teacher_key_env: str | None = None
    """Environment variable that holds the key of the teacher's server."""
    questions: Path | None = None
    """File of questions to measure by, one a line. Default: OneSeek's own, else the held-out ones."""
    alias: str | None = None
    """Public name of the adapter; none takes the one that fits the base and the language."""
    version: str | None = None
    """Such as v1.1; none takes the next free one."""
    output: Path | None = None
    """A new folder for the adapter, in place of the registry."""
    threads: int | None = None
    """Threads to compute with on a CPU. Default: as many as are quickest when the run begins."""
    force: bool = False
    """Make a version also of an adapter that diverged, or that scores no better than the base."""


def teacher_named(asked: TrainRequest | DistillSource) -> tuple[str, str] | None:
    """The option that names the teacher, and what it says; None if there is none.

    Raises `SettingsError` if both names of the option are used.
    """
    if asked.teacher is not None and asked.external_model is not None:
        raise SettingsError("external_model", "says the same as --teacher; keep one of them")
    if asked.external_model is not None:
        return "external_model", asked.external_model
    return None if asked.teacher is None else ("teacher", asked.teacher)


PretrainKind = Literal["scratch", "continue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainRequest:
    """What a run is asked for beside its options."""

    kind: PretrainKind
    plan: PretrainPlan
    data: tuple[DataPart, ...]
    output: Path
    base_model: Path | None
    resume: bool
    json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSource:
    """Who is asked what, and where that is kept."""

    teacher: str | None = None
    """http://HOST:PORT/v1 of any server that speaks OpenAI's API, the folder of a Hugging Face model, or its
    name in models/."""
    external_model: str | None = None
    """Another name of --teacher, as existing installations have it."""
    teacher_model: str | None = None
    """Which of the server's models to ask; http://HOST:PORT#MODEL says the same. Default: its first."""
    teacher_key_env: str | None = None
    """Environment variable that holds the key of the teacher's server."""
    judge: str | None = None
    """A model that grades each example, as --teacher; none leaves that out."""
    judge_model: str | None = None
    """As --teacher-model."""
    judge_key_env: str | None = None
    """As --teacher-key-env."""
    seeds: tuple[str, ...] = ()
    """Data sets whose prompts are asked, or .txt files of one prompt a line; none takes OneSeek's own."""
    output: Path | None = None
    """Folder of the data set, its journal and its report; none names one by what is asked of whom."""
    dataset: tuple[str, ...] = ()
    """Further data sets that the student is trained on, beside what the teacher wrote."""

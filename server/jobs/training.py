"""Run the training of an adapter for the command line, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import names
from adapters.errors import UnknownAdapterError
from adapters.lora.shape_check import ModelShape
from adapters.registry.registry import Registry
from adapters.training.finetune.data_origin import Origin
from adapters.training.loop.launch import Launch
from server.config.each_base import one_base
from server.config.environment import expand_home, process_environment
from server.config.settings import Settings, resolve_settings
from server.config.values import check_flag
from server.jobs.languages import detector_for
from server.jobs.requests import teacher_named
from server.jobs.teachers import key_of, teacher_of
from server.jobs.training_checks import (
    check_request,
    check_targets,
    check_version,
    default_alias,
    own_data,
    questions_of,
)
from server.live.catalogue import Catalogue, open_catalogue

if TYPE_CHECKING:
    from adapters.training.finetune.job import FinetuneJob
    from adapters.training.loop.options import TrainOptions
    from server.jobs.requests import TrainRequest


def run_finetune(asked: TrainRequest, options: TrainOptions, *, resume: bool, json: bool) -> int:
    """Run the training of an adapter. Returns the exit code: 0 if an adapter was made, 1 if it scored too low
    to become a version, 130 if it was interrupted.
    """
    settings = settings_of(asked)
    check_request(asked, options.language, settings)
    job = job_of(asked, options, settings, resume=resume)
    return run_training(job, settings, asked, json=json)


def settings_of(asked: TrainRequest) -> Settings:
    """Return the settings for a training, with `base_model` from the request if it is given there."""
    settings = resolve_settings().settings
    if asked.base_model is None:
        return settings
    flags = {} if settings.bases else {"base_model": str(asked.base_model)}
    settings = resolve_settings(flags).settings
    return one_base(settings, expand_home(asked.base_model)) if settings.bases else settings


def run_training(
    job: FinetuneJob,
    settings: Settings,
    asked: TrainRequest,
    *,
    json: bool,
    more: Mapping[str, Any] | None = None,
) -> int:
    """Train, save the adapter and report the result. Returns the exit code. `more` is added to the JSON
    report.
    """
    language_of = detector_for(job.options.language)

    from adapters.training.finetune.identity import clean_up, train_identity
    from adapters.training.finetune.job import FinetuneInterrupted, HelperProcess
    from adapters.training.loop.progress import Reporter
    from server.jobs.training_results import keep, print_interrupted, print_result, set_aside

    outcome = train_identity(job, language_of, Reporter())
    if isinstance(outcome, HelperProcess):
        return 0
    if isinstance(outcome, FinetuneInterrupted):
        return print_interrupted(outcome, with_flag=job.resume is not None)
    if outcome.failing is not None and asked.output is None and not asked.force:
        kept = set_aside(outcome, job, settings)
    else:
        kept = keep(outcome, job, settings, asked.output)
    clean_up(outcome)
    print_result(outcome, job, kept, json=json, more=more or {})
    return 1 if kept.place == "aside" else 0


def job_of(
    asked: TrainRequest,
    options: TrainOptions,
    settings: Settings,
    *,
    resume: bool | None,
    made: tuple[Path, ...] = (),
    origin: Origin | None = None,
) -> FinetuneJob:
    """Return the training job for a request. `made` are data files that a teacher made, besides the request's
    data sets.

    Raises `SettingsError` for invalid options, before torch is imported.
    """
    catalogue = open_catalogue(settings)
    base = catalogue.base
    alias = check_flag("alias", asked.alias, names.alias) or default_alias(base.shipped, options.language)
    version = check_flag("version", asked.version, names.version)
    if version is not None and asked.output is None:
        check_version(catalogue, alias, version)
    family = ModelShape.read(base.path).family
    options = options.for_family(family)
    check_targets(options, family)
    named = teacher_named(asked)
    from adapters.training.finetune.job import FinetuneJob

    return FinetuneJob(
        options=options,
        base=base.path,
        base_name=base.name,
        base_digest=catalogue.served.base_digest,
        dataset=(*made, *map(expand_home, asked.dataset)) or own_data(options.language),
        questions=questions_of(asked, options.language),
        active=_active(catalogue, alias),
        alias=alias,
        version=version or _next_version(catalogue, settings, alias),
        folder=settings.home / "training",
        resume=resume,
        teacher=teacher_of(asked),
        teacher_option=named[0] if named else "teacher",
        teacher_key=key_of("teacher", asked.teacher_key_env),
        threads=asked.threads,
        launch=Launch.read(process_environment()),
        origin=origin or Origin(),
    )


def _active(catalogue: Catalogue, alias: str) -> tuple[str, Path] | None:
    """Return the full name and folder of the active version of `alias`. None if there is none."""
    try:
        found = catalogue.served.resolve(alias)
    except UnknownAdapterError:
        return None
    return (found.full_name, found.path) if found.problem is None else None


def _next_version(catalogue: Catalogue, settings: Settings, alias: str) -> str:
    """Return the next free version of `alias`: v1.0, or one above the highest version that exists."""
    served = [item.version for item in catalogue.served.adapters() if item.alias.lower() == alias.lower()]
    kept = [entry.version for entry in Registry(settings.home).listing().versions(alias)]
    return names.next_version([*served, *kept])

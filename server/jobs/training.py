"""Runs a training that the command line asked for, in this process, and keeps what it makes."""

from __future__ import annotations

import json as json_format
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import names
from adapters.files.atomic import staged_folder
from adapters.lora.shape_check import ModelShape
from adapters.registry.intake import Base, check_adapter
from adapters.registry.ledger_records import addition
from adapters.registry.registry import Registry
from adapters.training.finetune.data_origin import Origin
from adapters.training.loop.launch import Launch
from server.config.environment import expand_home, process_environment
from server.config.settings import Settings, resolve_settings
from server.config.values import SettingsError, check_flag
from server.live.catalogue import Catalogue, open_catalogue, open_ledger, open_registry

if TYPE_CHECKING:
    from adapters.evaluation.judge import LanguageOf
    from adapters.training.finetune.job import FinetuneInterrupted, FinetuneJob, FinetuneResult
    from adapters.training.loop.options import TrainOptions
    from server.jobs.requests import TrainRequest


def run_finetune(asked: TrainRequest, options: TrainOptions, *, resume: bool, json: bool) -> int:
    """Run it; 0 where an adapter was made, 130 where it was interrupted and can go on."""
    settings = settings_of(asked)
    if asked.output is not None and asked.output.exists():
        raise SettingsError("output", f"{asked.output} exists; name a folder that does not")
    job = job_of(asked, options, settings, resume=resume)
    return run_training(job, settings, asked.output, json=json)


def settings_of(asked: TrainRequest) -> Settings:
    """The settings, with the base that was asked for."""
    flags = {"base_model": str(asked.base_model)} if asked.base_model is not None else {}
    return resolve_settings(flags).settings


def run_training(
    job: FinetuneJob,
    settings: Settings,
    output: Path | None,
    *,
    json: bool,
    more: Mapping[str, Any] | None = None,
) -> int:
    """Train, keep what was made, and say so: the exit code, as `run_finetune`. `more` joins the JSON."""
    from adapters.training.finetune.identity import clean_up, train_identity
    from adapters.training.finetune.job import FinetuneInterrupted, HelperProcess
    from adapters.training.loop.progress import Reporter

    outcome = train_identity(job, detector(), Reporter())
    if isinstance(outcome, HelperProcess):
        return 0
    if isinstance(outcome, FinetuneInterrupted):
        return _print_interrupted(outcome, with_flag=job.resume is not None)
    kept = keep(outcome, job, settings, output)
    clean_up(outcome)
    _print_result(outcome, job, kept, json=json, more=more or {})
    return 0


def detector() -> LanguageOf:
    """Routing's detector, asked about one text: its language where that is decided."""
    from routing.detect import ProfileDetector

    found = ProfileDetector()
    return lambda text: found.detect([text]).language


def job_of(
    asked: TrainRequest,
    options: TrainOptions,
    settings: Settings,
    *,
    resume: bool | None,
    made: tuple[Path, ...] = (),
    origin: Origin | None = None,
) -> FinetuneJob:
    """The run that was asked for; of data `made` for it, and of those that were asked for beside."""
    from adapters.training.finetune.job import FinetuneJob

    catalogue = open_catalogue(settings)
    base = catalogue.base
    alias = check_flag("alias", asked.alias, names.alias) or default_alias(base.shipped, options.language)
    version = check_flag("version", asked.version, names.version) or _next_version(catalogue, settings, alias)
    return FinetuneJob(
        options=options.for_family(ModelShape.read(base.path).family),
        base=base.path,
        base_name=base.name,
        base_digest=catalogue.served.base_digest,
        dataset=(*made, *map(expand_home, asked.dataset)) or own_data(options.language),
        alias=alias,
        version=version,
        folder=settings.home / "training",
        resume=resume,
        teacher=_teacher(asked.external_model),
        launch=Launch.read(process_environment()),
        origin=origin or Origin(),
    )


def _teacher(given: str | None) -> str | None:
    """A server's address as it is, a folder's path without `~`."""
    return given if given is None or "://" in given else str(expand_home(given))


def default_alias(shipped: bool, language: str) -> str:
    """What the adapter for `language` is called; on other bases as existing installations name theirs."""
    if shipped:
        return f"oneseek-mini-{language}"
    return "oneseek-7b-zero" if language == "en" else f"oneseek-7b-zero-{language}"


def own_data(language: str) -> tuple[Path, ...]:
    """OneSeek's own identity data: the file of both languages, and that of `language`."""
    import adapters.datasets

    folder = Path(adapters.datasets.__path__[0])
    return folder / "oneseek_identity_v1.jsonl", folder / f"oneseek_identity_{language}_v1.jsonl"


def _next_version(catalogue: Catalogue, settings: Settings, alias: str) -> str:
    """The first free version of `alias`: v1.0, or the one after the highest that is there, served or not."""
    served = [item.version for item in catalogue.served.adapters() if item.alias.lower() == alias.lower()]
    kept = [entry.version for entry in Registry(settings.home).listing().versions(alias)]
    return names.next_version([*served, *kept])


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """Where an adapter is, and whether its alias now stands for it."""

    path: Path
    active: bool
    outside: bool = False
    """Whether it is in a folder of its own, not in the registry."""


def keep(made: FinetuneResult, job: FinetuneJob, settings: Settings, output: Path | None) -> SavedAdapter:
    """Put what was made into the registry, or into `output`, and tell the ledger. Whole, or not at all.

    Raises `RegistryError` where the version has come to exist meanwhile, `AdapterError` and `LedgerError`.
    """
    sources = {"config": made.config_digest, **job.origin.sources}
    if made.teacher_digest is not None:
        sources["teacher"] = made.teacher_digest
    details = {"seed": job.options.seed, "steps": made.run.steps, **job.origin.details}
    action = job.origin.action
    base = Base(name=job.base_name, digest=job.base_digest, shape=ModelShape.read(job.base))
    report = settings.home / "training" / "reports" / f"{job.alias}@{job.version}"
    with staged_folder(report, replace=True) as folder:
        shutil.copytree(made.report, folder, dirs_exist_ok=True)
    if output is None:
        registry = open_registry(settings)
        added = registry.add(made.folder, base=base, action=action, sources=sources, details=details)
        return SavedAdapter(added.adapter.path, added.active)
    record = addition(check_adapter(made.folder, base), action, sources, details)
    open_ledger(settings).append(record)
    with staged_folder(output) as folder:
        shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    return SavedAdapter(output, active=False, outside=True)


def _print_interrupted(stopped: FinetuneInterrupted, *, with_flag: bool) -> int:
    flag = ["--resume"] if with_flag and "--resume" not in sys.argv else []
    again = shlex.join(["oneseek", *sys.argv[1:], *flag])
    print(
        f"interrupted after step {stopped.step} of {stopped.planned}; its checkpoint is in {stopped.work}. "
        f"Go on with: {again}",
        file=sys.stderr,
    )
    return 130


def _print_result(
    made: FinetuneResult, job: FinetuneJob, kept: SavedAdapter, *, json: bool, more: Mapping[str, Any]
) -> None:
    """The report, and the one line that says what was made."""
    from adapters.evaluation.report import format_score

    name = f"{job.alias}@{job.version}"
    serve = f"to serve it by its alias: oneseek adapters promote {name}"
    if kept.outside:
        serve = f"to serve it: oneseek serve --adapters {kept.path}"
    summary = f"made {name} in {kept.path}; " + ("it is active" if kept.active else serve)
    if json:
        told: dict[str, Any] = {
            "adapter": name,
            "path": str(kept.path),
            "active": kept.active,
            "metrics": dict(made.metrics),
            "trained": made.after.to_json(made.before),
            "base": made.before.to_json(),
            **more,
            "summary": summary,
        }
        print(json_format.dumps(told, ensure_ascii=False))
        return
    for line in made.curve_lines:
        print(line)
    for what in ("identity", "fidelity"):
        before, after = getattr(made.before, what), getattr(made.after, what)
        print(f"{what:>14}  base {format_score(before)}, adapter {format_score(after)}")
    print(summary)

"""Save a trained adapter, and report the result. It becomes a version, goes to a folder, or is set aside if
it failed.
"""

from __future__ import annotations

import json as json_format
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapters.evaluation.report import format_score
from adapters.files.atomic import staged_folder
from adapters.lora.shape_check import ModelShape
from adapters.registry.intake import Base, check_adapter
from adapters.registry.ledger_records import addition
from server.live.catalogue import open_ledger, open_registry

if TYPE_CHECKING:
    from adapters.training.finetune.job import FinetuneInterrupted, FinetuneJob, FinetuneResult
    from server.config.settings import Settings


@dataclass(frozen=True, slots=True)
class SavedAdapter:
    """Where an adapter was saved, and whether it is now the active version of its alias."""

    path: Path
    report: Path
    """Folder with the training's loss.png and report.json."""
    place: Literal["registry", "outside", "aside"]
    """Where the adapter was saved: as a version in the `registry`; in the folder of --output (`outside`); or,
    without becoming a version, in the folder for failed adapters (`aside`).
    """
    active: bool = False
    stands: str | None = None
    """Full name of the active version of the adapter's alias, if the adapter is in the registry."""


def keep(made: FinetuneResult, job: FinetuneJob, settings: Settings, output: Path | None) -> SavedAdapter:
    """Save the adapter in the registry or in the folder `output`, and record it in the ledger.

    Raises `RegistryError` if the version was made by someone else meanwhile, `AdapterError` and
    `LedgerError`.
    """
    sources = {"config": made.config_digest, **job.origin.sources}
    if made.teacher_digest is not None:
        sources["teacher"] = made.teacher_digest
    details = {"seed": job.options.seed, "steps": made.run.steps, **job.origin.details}
    action = job.origin.action
    base = Base(name=job.base_name, digest=job.base_digest, shape=ModelShape.read(job.base))
    report = _save_report(made, job, settings)
    if output is None:
        registry = open_registry(settings)
        added = registry.add(made.folder, base=base, action=action, sources=sources, details=details)
        return SavedAdapter(added.adapter.path, report, "registry", added.active, added.stands)
    record = addition(check_adapter(made.folder, base), action, sources, details)
    open_ledger(settings).append(record)
    with staged_folder(output) as folder:
        shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    return SavedAdapter(output, report, "outside")


def set_aside(made: FinetuneResult, job: FinetuneJob, settings: Settings) -> SavedAdapter:
    """Save the adapter in the folder for failed adapters, without making it a version."""
    path = settings.home / "training" / "set-aside" / f"{job.alias}@{job.version}"
    with staged_folder(path, replace=True) as folder:
        shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    return SavedAdapter(path, _save_report(made, job, settings), "aside")


def _save_report(made: FinetuneResult, job: FinetuneJob, settings: Settings) -> Path:
    report = settings.home / "training" / "reports" / f"{job.alias}@{job.version}"
    with staged_folder(report, replace=True) as folder:
        shutil.copytree(made.report, folder, dirs_exist_ok=True)
    return report


def print_interrupted(stopped: FinetuneInterrupted, *, with_flag: bool) -> int:
    """Print how to continue an interrupted training. Returns the exit code."""
    flag = ["--resume"] if with_flag and "--resume" not in sys.argv else []
    again = shlex.join(["oneseek", *sys.argv[1:], *flag])
    print(
        f"interrupted after step {stopped.step} of {stopped.planned}; its checkpoint is in {stopped.work}. "
        f"Continue with: {again}",
        file=sys.stderr,
    )
    return 130


def print_result(
    made: FinetuneResult, job: FinetuneJob, kept: SavedAdapter, *, json: bool, more: Mapping[str, Any]
) -> None:
    """Print the report of a training and a line that says what was made. With `json`, print them as JSON."""
    if json:
        told = {**_result_to_json(made, job, kept), **more, "summary": _summary(made, job, kept)}
        print(json_format.dumps(told, ensure_ascii=False))
        return
    for line in (*made.curve_lines, *_lines(made, kept), _summary(made, job, kept)):
        print(line)


def _result_to_json(made: FinetuneResult, job: FinetuneJob, kept: SavedAdapter) -> dict[str, Any]:
    return {
        "adapter": f"{job.alias}@{job.version}",
        "path": str(kept.path),
        "active": kept.active,
        "version": kept.place == "registry",
        "problem": made.failing,
        "report": str(kept.report),
        "kept_epoch": made.run.kept_epoch,
        "stopped_early": made.run.stopped_early,
        "metrics": dict(made.metrics),
        "trained": made.after.to_json(made.before),
        "base": made.before.to_json(),
        "active_version": None if made.active is None else made.active.to_json(made.before),
    }


def _lines(made: FinetuneResult, kept: SavedAdapter) -> Iterator[str]:
    """Yield lines about the adapter's scores, the epoch whose weights were kept, and the file of the loss
    curve.
    """
    for what in ("identity", "fidelity"):
        scores = [("base", getattr(made.before, what))]
        if made.active is not None:
            scores.append((made.active.name, getattr(made.active, what)))
        scores.append(("adapter", getattr(made.after, what)))
        if made.after.questions:
            yield f"{what:>14}  " + ", ".join(f"{name} {format_score(score)}" for name, score in scores)
    yield f"{'kept':>14}  {_kept(made)}"
    yield f"{'curve':>14}  {kept.report / 'loss.png'}"
    if made.active is not None and made.worse_than_active:
        yield (
            f"the new adapter scores worse than the active {made.active.name}; "
            "compare both before you promote the new one"
        )


def _kept(made: FinetuneResult) -> str:
    run = made.run
    found = f"the weights after epoch {run.kept_epoch:g} of {run.planned_epochs:g}"
    if run.best_held_out is not None:
        found += ", those with the lowest held-out loss"
    if run.stopped_early:
        found += f"; stopped early after epoch {run.epochs:g}, when the held-out loss stopped falling"
    return found


def _summary(made: FinetuneResult, job: FinetuneJob, kept: SavedAdapter) -> str:
    name, path = f"{job.alias}@{job.version}", shlex.quote(str(kept.path))
    if kept.place == "aside":
        names = shlex.join(["--alias", job.alias, "--version", job.version])
        return (
            f"{name} was not added to the registry: {made.failing}. The adapter is in {kept.path}. To add it "
            f"anyway: oneseek adapters add {path} {names}, or train again with --force"
        )
    serve = f"{kept.stands} stays active; to serve it by its alias: oneseek adapters promote {name}"
    if kept.place == "outside":
        serve = f"to serve it: oneseek serve --adapters {path}"
    warning = f", although {made.failing}" if made.failing is not None else ""
    return f"made {name} in {kept.path}{warning}; " + ("it is active" if kept.active else serve)

"""Run a pre-training of a base for the command line, in this process, and record the base in the ledger."""

from __future__ import annotations

import json as json_format
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.files.atomic import staged_folder
from adapters.home import mark_home
from adapters.ledger import Record
from adapters.training.loop.launch import Launch
from adapters.training.loop.options import OptionError
from server.config.environment import expand_home, process_environment
from server.config.settings import Settings, resolve_settings
from server.config.values import SettingsError
from server.live.catalogue import open_ledger

if TYPE_CHECKING:
    from adapters.training.pretrain.corpus_job import (
        BaseRecord,
        PretrainInterrupted,
        PretrainJob,
        PretrainResult,
    )
    from adapters.training.pretrain.pretrain_options import PretrainOptions
    from server.jobs.requests import PretrainRequest


def run_pretrain(asked: PretrainRequest, options: PretrainOptions) -> int:
    """Run a pre-training. Returns the exit code: 0 if a base was made, 130 if it was interrupted."""
    settings = resolve_settings({}).settings
    _check(asked)
    mark_home(settings.home)

    from adapters.training.loop.progress import Reporter
    from adapters.training.pretrain.corpus_job import PretrainInterrupted, run_pretraining

    job = _job(asked, options, settings)
    outcome = run_pretraining(job, Reporter(), lambda known: _note(known, job, settings))
    if outcome is None:
        return 0
    if isinstance(outcome, PretrainInterrupted):
        return _print_interrupted(outcome)
    report = settings.home / "training" / "reports" / asked.output.resolve().name
    with staged_folder(report, replace=True) as folder:
        shutil.copytree(outcome.work / "report", folder, dirs_exist_ok=True)
    shutil.rmtree(outcome.work)
    _print_result(outcome, asked, report)
    return 0


def _check(asked: PretrainRequest) -> None:
    """Check a pre-training's options before torch is imported. Raises `SettingsError` and `OptionError`."""
    if asked.output.exists():
        raise SettingsError("output", f"{asked.output} already exists; use a new folder")
    plan = asked.plan
    if asked.kind == "scratch" and (plan.model is None or plan.tokenizer is None):
        missing = "model" if plan.model is None else "tokenizer"
        raise OptionError(missing, "is missing; give a YAML file with the sections model and tokenizer")
    if asked.kind == "continue" and asked.base_model is None:
        raise SettingsError("base_model", "is missing; give the folder of the base to train further")
    for part in asked.data:
        if not Path(part.path).exists():
            raise SettingsError("data", f"{part.path} does not exist; give text files, or folders of them")
    if (
        asked.data
        and asked.base_model is not None
        and not (expand_home(asked.base_model) / "config.json").is_file()
    ):
        raise SettingsError(
            "base_model", f"the folder {asked.base_model} has no config.json; give the folder of a base model"
        )


def _job(asked: PretrainRequest, options: PretrainOptions, settings: Settings) -> PretrainJob:
    from adapters.training.pretrain.corpus_job import PretrainJob

    plan = asked.plan
    return PretrainJob(
        kind=asked.kind,
        options=options,
        phases=plan.phases,
        model=plan.model,
        tokenizer=plan.tokenizer,
        base=expand_home(asked.base_model) if asked.base_model is not None else None,
        data=asked.data,
        output=expand_home(asked.output),
        folder=settings.home / "training",
        cache=settings.home / "cache",
        resume=asked.resume,
        launch=Launch.read(process_environment()),
    )


def _note(known: BaseRecord, job: PretrainJob, settings: Settings) -> None:
    """Record the new base in the ledger, but only once, even if an earlier run was killed right after doing
    so.
    """
    ledger = open_ledger(settings)
    if ledger.knows(known.digest):
        return
    ledger.append(
        Record(
            action="train",
            subject=job.output.resolve().name,
            inputs=known.inputs,
            outputs={"model": known.digest},
            metrics=known.metrics,
            details=known.details,
        )
    )


def _print_interrupted(stopped: PretrainInterrupted) -> int:
    again = shlex.join(["oneseek", *sys.argv[1:], *([] if "--resume" in sys.argv else ["--resume"])])
    print(
        f"interrupted after step {stopped.step} of {stopped.planned}; its checkpoint is in {stopped.work}. "
        f"Continue with: {again}",
        file=sys.stderr,
    )
    return 130


def _print_result(made: PretrainResult, asked: PretrainRequest, report: Path) -> None:
    """Print the summary of a pre-training: what was made, and where the loss curve is."""
    metrics = made.metrics
    held = f" ({metrics['held_out_loss']:.3f} held out)" if "held_out_loss" in metrics else ""
    summary = (
        f"made {asked.output}: {made.parameters:,} parameters, {metrics['tokens']:,.0f} tokens in "
        f"{metrics['steps']:.0f} steps, loss {metrics['loss']:.3f}{held}; "
        f"to serve it: oneseek serve --base-model {shlex.quote(str(asked.output))}"
    )
    if asked.json:
        told = {
            "path": str(asked.output),
            "digest": made.digest,
            "parameters": made.parameters,
            "metrics": dict(metrics),
            "report": str(report),
            "summary": summary,
        }
        print(json_format.dumps(told, ensure_ascii=False))
        return
    for line in (*made.curve_lines, f"{'curve':>14}  {report / 'loss.png'}", summary):
        print(line)

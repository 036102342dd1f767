"""Runs a pre-training that the command line asked for, in this process, and tells the ledger."""

from __future__ import annotations

import json as json_format
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.ledger import Ledger, Record
from adapters.training.loop.files import write_folder
from adapters.training.loop.options import OptionError
from server.config.settings import Settings, resolve_settings
from server.config.values import SettingsError

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
    """Run it; 0 where a base was made, 130 where it was interrupted and can go on."""
    from adapters.training.loop.progress import Reporter
    from adapters.training.pretrain.corpus_job import PretrainInterrupted, run_pretraining

    settings = resolve_settings({}).settings
    job = _job(asked, options, settings)
    outcome = run_pretraining(job, Reporter(), lambda known: _note(known, job, settings))
    if outcome is None:
        return 0
    if isinstance(outcome, PretrainInterrupted):
        return _print_interrupted(outcome)
    report = settings.home / "training" / "reports" / asked.output.resolve().name
    write_folder(report, lambda folder: shutil.copytree(outcome.work / "report", folder, dirs_exist_ok=True))
    shutil.rmtree(outcome.work)
    _print_result(outcome, asked, report)
    return 0


def _job(asked: PretrainRequest, options: PretrainOptions, settings: Settings) -> PretrainJob:
    from adapters.training.pretrain.corpus_job import PretrainJob

    if asked.output.exists():
        raise SettingsError("output", f"{asked.output} exists; name a folder that does not")
    plan = asked.plan
    if asked.kind == "scratch" and (plan.model is None or plan.tokenizer is None):
        missing = "model" if plan.model is None else "tokenizer"
        raise OptionError(missing, "is missing: --config names a YAML file with sections model and tokenizer")
    if asked.kind == "continue" and asked.base_model is None:
        raise SettingsError("base_model", "is missing; name the folder of the base to go on with")
    return PretrainJob(
        kind=asked.kind,
        options=options,
        phases=plan.phases,
        model=plan.model,
        tokenizer=plan.tokenizer,
        base=asked.base_model.expanduser() if asked.base_model is not None else None,
        data=asked.data,
        output=asked.output.expanduser(),
        folder=settings.home / "training",
        cache=settings.home / "cache",
        resume=asked.resume,
    )


def _note(known: BaseRecord, job: PretrainJob, settings: Settings) -> None:
    """Tell the ledger; once, also where a kill came between that and the folder's name."""
    ledger = Ledger.open(settings.home / "ledger")
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
        f"Go on with: {again}",
        file=sys.stderr,
    )
    return 130


def _print_result(made: PretrainResult, asked: PretrainRequest, report: Path) -> None:
    """The curve, and the one line that says what was made."""
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
    for line in made.curve_lines:
        print(line)
    print(summary)

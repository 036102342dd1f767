"""`oneseek train identity`: from identity data to a measured adapter folder in PEFT layout, ready to be kept.

Nothing here changes a registry. What it makes lies in its work folder, whole, until its caller has taken it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from adapters.evaluation.judge import LanguageOf
from adapters.evaluation.questions import identity_questions
from adapters.evaluation.report import IdentityReport, judge_answers
from adapters.files.atomic import staged_folder
from adapters.files.jsonfile import canonical_json
from adapters.training.finetune.answering import ask
from adapters.training.finetune.base import (
    Machine,
    check_machine,
    load_base,
    load_tokenizer,
    resolve_precision,
)
from adapters.training.finetune.conversations import (
    Conversation,
    files_digest,
    hold_out,
    in_language,
    read_conversations,
)
from adapters.training.finetune.curve import write_png
from adapters.training.finetune.examples import TokenizedExample, examples
from adapters.training.finetune.finetune import FinetuneRun, finetune, last_checkpoint
from adapters.training.finetune.job import FinetuneInterrupted, FinetuneJob, FinetuneResult, HelperProcess
from adapters.training.finetune.teacher import TeacherData, teach
from adapters.training.loop.interruption import Interruption
from adapters.training.loop.options import OptionError, TrainOptions
from adapters.training.loop.progress import Reporter


def train_identity(
    job: FinetuneJob, language_of: LanguageOf, reporter: Reporter, interruption: Interruption | None = None
) -> FinetuneResult | FinetuneInterrupted | HelperProcess:
    """Run `job`.

    Raises `OptionError` where an option, the data or this machine do not fit together, and `OSError`.
    """
    transformers_logging.disable_progress_bar()
    machine = Machine.here(job.launch)
    check_machine(job.options, machine)
    if machine.rank:
        reporter = Reporter(io.StringIO())
    tokenizer = load_tokenizer(job.base)
    kept, held = _split(job, language_of, reporter)
    taught = None
    if job.teacher is not None:
        taught = teach(job.teacher, kept, job.options, language_of, job.folder, reporter, launch=job.launch)
    training, held_out, rows = _tokens(
        job, tokenizer, (*kept, *(taught.conversations if taught else ())), held, reporter
    )
    work = _work_folder(job, taught)
    base = load_base(job.base, job.options, machine)
    reporter.print_event(
        "training",
        base=job.base_name,
        language=job.options.language,
        examples=len(training),
        held_out=len(held_out),
        precision=resolve_precision(job.options.precision, machine),
        parameters=base.num_parameters(),
    )
    run = finetune(
        base,
        tokenizer,
        training,
        held_out,
        job.options,
        machine,
        work=work,
        resume=job.resume is not False,
        reporter=reporter,
        interruption=interruption or Interruption(),
    )
    if not run.main:
        return HelperProcess()
    if run.interrupted:
        return FinetuneInterrupted(run.steps, run.planned, work)
    before, after = _measure(job, run.model, tokenizer, language_of)
    return _write(job, work, run, before, after, rows, taught)


def _split(
    job: FinetuneJob, language_of: LanguageOf, reporter: Reporter
) -> tuple[list[Conversation], list[Conversation]]:
    """What is trained on, and what is held out."""
    read = [one for path in job.dataset for one in read_conversations(path)]
    spoken = in_language(read, job.options.language, language_of)
    if len(spoken) < len(read):
        reporter.print_event("left out", in_another_language=len(read) - len(spoken))
    return hold_out(spoken, job.options.held_out, job.options.seed)


def _tokens(
    job: FinetuneJob,
    tokenizer: PreTrainedTokenizerBase,
    kept: Sequence[Conversation],
    held: Sequence[Conversation],
    reporter: Reporter,
) -> tuple[list[TokenizedExample], list[TokenizedExample], int]:
    """Examples to train on and to hold out, and how many conversations are trained on."""
    training = [_fitting(job.options, tokenizer, one) for one in kept]
    held_out = [_fitting(job.options, tokenizer, one) for one in held]
    if long := sum(not found for found in (*training, *held_out)):
        reporter.print_event("left out", longer_than_max_length=long)
    if not any(training):
        files = ", ".join(map(str, job.dataset))
        raise OptionError("dataset", f"{files}: no example in {job.options.language!r} is left to train on")
    rows = sum(bool(found) for found in training)
    return [one for found in training for one in found], [one for found in held_out for one in found], rows


def _fitting(
    options: TrainOptions, tokenizer: PreTrainedTokenizerBase, conversation: Conversation
) -> list[TokenizedExample]:
    found = examples(tokenizer, conversation)
    return found if all(len(one["input_ids"]) <= options.max_length for one in found) else []


def _work_folder(job: FinetuneJob, taught: TeacherData | None) -> Path:
    """The folder of this very run: the same base, data and options come to the same folder."""
    asked = {"base": job.base_digest, "data": files_digest(job.dataset), **_config(job, taught)}
    name = f"{job.options.language}-{hashlib.sha256(canonical_json(asked)).hexdigest()[:16]}"
    work = job.folder / name
    if job.resume and last_checkpoint(work) is None:
        others = [str(path) for path in sorted(job.folder.glob("*-*")) if last_checkpoint(path) is not None]
        hint = f"; unfinished with other options or data: {', '.join(others)}" if others else ""
        raise OptionError("resume", f"no run of these options and data is unfinished in {job.folder}{hint}")
    if job.resume is False and last_checkpoint(work) is not None:
        remedy = f"go on with --resume, or begin anew: rm -r {work}"
        raise OptionError("resume", f"this run was interrupted; {remedy}")
    work.mkdir(parents=True, exist_ok=True)
    return work


def _config(job: FinetuneJob, taught: TeacherData | None) -> dict[str, Any]:
    teacher = {"teacher": {"name": taught.name, "digest": taught.digest}} if taught else {}
    return {**job.options.to_json(), **teacher, **job.origin.config}


def _measure(
    job: FinetuneJob, model: PeftModel, tokenizer: PreTrainedTokenizerBase, language_of: LanguageOf
) -> tuple[IdentityReport, IdentityReport]:
    """The identity questions, answered by the base and by the adapter."""
    language = job.options.language
    questions = identity_questions(language)
    model.eval()
    model.config.use_cache = True
    with model.disable_adapter():
        said = ask(_unwrap(model), tokenizer, questions)
    before = judge_answers(job.base_name, language, questions, said, language_of)
    after = judge_answers(
        f"{job.alias}@{job.version}",
        language,
        questions,
        ask(_unwrap(model), tokenizer, questions),
        language_of,
    )
    return before, after


def _unwrap(model: PeftModel) -> PreTrainedModel:
    return model  # pyright: ignore[reportReturnType] a PeftModel hands everything on to the model in it


def _write(
    job: FinetuneJob,
    work: Path,
    run: FinetuneRun,
    before: IdentityReport,
    after: IdentityReport,
    rows: int,
    taught: TeacherData | None,
) -> FinetuneResult:
    config = _config(job, taught)
    metrics = {**_metrics(run, before, after), **job.origin.metrics}
    digests = {
        "config": f"sha256:{hashlib.sha256(canonical_json(config)).hexdigest()}",
        "data": files_digest(job.dataset),
    }
    manifest = _manifest(job, metrics, digests, rows, config)
    folder, report = work / "adapter", work / "report"

    with staged_folder(folder, replace=True) as path:
        run.model.save_pretrained(str(path), save_embedding_layers=False)
        _correct_config(path / "adapter_config.json", job.base_name)
        _write_json(path / "oneseek.json", manifest)
        (path / "README.md").write_text(_card(job, manifest), encoding="utf-8", newline="\n")
    with staged_folder(report, replace=True) as path:
        write_png(path / "loss.png", run.curve, f"{job.alias} {job.version}")
        _write_json(path / "report.json", _report(job, run, before, after, metrics))
    return FinetuneResult(
        folder=folder,
        report=report,
        work=work,
        run=run,
        before=before,
        after=after,
        metrics=metrics,
        config_digest=digests["config"],
        teacher_digest=taught.digest if taught else None,
        dataset_digest=digests["data"],
    )


def _metrics(run: FinetuneRun, before: IdentityReport, after: IdentityReport) -> dict[str, float]:
    """What is recorded of the adapter; the losses are those of the weights that were kept."""
    best = run.best_held_out
    step = best[0] if best is not None else run.steps
    found = {
        "loss": _at(run.curve.train, step),
        "token_accuracy": _at(run.curve.accuracy, step),
        "held_out_loss": _at(run.curve.held_out, step),
        "held_out_token_accuracy": _at(run.curve.held_out_accuracy, step),
        "identity": after.identity_score,
        "identity_of_base": before.identity_score,
        "language_fidelity": after.language_fidelity,
        "language_fidelity_of_base": before.language_fidelity,
        "steps": float(run.steps),
        "kept_step": float(step),
    }
    return {name: round(value, 4) for name, value in found.items() if math.isfinite(value)}


def _at(points: Sequence[tuple[int, float]], step: int) -> float:
    """The last value up to `step`; not a number where there is none."""
    return next((value for at, value in reversed(points) if at <= step), math.nan)


def _manifest(
    job: FinetuneJob,
    metrics: Mapping[str, float],
    digests: Mapping[str, str],
    rows: int,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    options = job.options
    return {
        "alias": job.alias,
        "version": job.version,
        "language": options.language,
        "base_digest": job.base_digest,
        "dataset": [path.name for path in job.dataset],
        "dataset_digest": digests["data"],
        "rows": rows,
        "rank": options.rank,
        "alpha": options.alpha,
        "targets": list(options.targets),
        "metrics": dict(metrics),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "about": {
            "made_by": job.origin.made_by,
            "config": dict(config),
            "config_digest": digests["config"],
            "packages": {name: version(name) for name in ("torch", "transformers", "peft", "trl")},
        },
    }


def _correct_config(path: Path, base_name: str) -> None:
    """The base by its name, not by a path on this machine; targets in an order that does not change."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    config["target_modules"] = sorted(config["target_modules"])
    config["inference_mode"] = True
    _write_json(path, config)


def _report(
    job: FinetuneJob,
    run: FinetuneRun,
    before: IdentityReport,
    after: IdentityReport,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    answered = zip(after.questions, before.answers, after.answers, after.identity, strict=True)
    return {
        "adapter": f"{job.alias}@{job.version}",
        "base": before.to_json(),
        "trained": after.to_json(before),
        "metrics": dict(metrics),
        "seconds": round(run.seconds, 1),
        "steps": run.steps,
        "planned_steps": run.planned,
        "threads": torch.get_num_threads(),
        "loss": run.curve.train,
        "held_out_loss": run.curve.held_out,
        "answers": [
            {"question": question, "base": old, "trained": new, "identity": good}
            for question, old, new, good in answered
        ],
    }


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


_CARD = """\
---
base_model: {base}
library_name: peft
pipeline_tag: text-generation
language:
- {language}
tags:
- base_model:adapter:{base}
- lora
- oneseek
- transformers
---

# {alias} {version}

A LoRA of rank {rank} (alpha {alpha}) on {targets} of `{base}`, trained by `{made_by}` on {rows}
{data} in the language `{language}`, with the loss on the answers alone.

| | base | this adapter |
|---|---|---|
| identity questions answered as OneSeek | {identity_of_base:.2f} | {identity:.2f} |
| answers in the language of the question | {language_fidelity_of_base:.2f} | {language_fidelity:.2f} |

`oneseek.json` holds every option and the digests of the base and the data.
"""


def _card(job: FinetuneJob, manifest: Mapping[str, Any]) -> str:
    targets = " and ".join(f"`{target}`" for target in manifest["targets"])
    told = {name: manifest[name] for name in ("alias", "version", "language", "rank", "alpha", "rows")}
    origin = {"made_by": job.origin.made_by, "data": job.origin.data}
    return _CARD.format(**told, **origin, **manifest["metrics"], base=job.base_name, targets=targets)


def clean_up(made: FinetuneResult) -> None:
    """Remove the run's work folder, once everything in it was taken."""
    shutil.rmtree(made.work)

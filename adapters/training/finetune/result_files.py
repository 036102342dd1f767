"""Write the files of a finished LoRA training run: the adapter with oneseek.json and model card, the loss
curve, and the report.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from adapters.evaluation.report import IdentityReport
from adapters.files.atomic import staged_folder
from adapters.files.jsonfile import canonical_json
from adapters.training.finetune.conversations import files_digest
from adapters.training.finetune.curve import write_png
from adapters.training.finetune.finetune import FinetuneRun
from adapters.training.finetune.job import FinetuneJob, FinetuneResult
from adapters.training.finetune.teacher import TeacherData


@dataclass(frozen=True, slots=True)
class Measured:
    """Evaluations of the base model, the newly trained adapter and its currently active version on the same
    questions.
    """

    before: IdentityReport
    after: IdentityReport
    active: IdentityReport | None


def config_of(job: FinetuneJob, taught: TeacherData | None) -> dict[str, Any]:
    """Return all settings that decide the result of the run: options, teacher, and origin of the data. The
    base model and the data themselves are not included.
    """
    teacher = {"teacher": {"name": taught.name, "digest": taught.digest}} if taught else {}
    return {**job.options.to_json(), **teacher, **job.origin.config}


def write_result(
    job: FinetuneJob,
    work: Path,
    run: FinetuneRun,
    measured: Measured,
    rows: int,
    taught: TeacherData | None,
) -> FinetuneResult:
    """Write the adapter folder and the report folder into `work`, each atomically, and return the result of
    the run.
    """
    before, after = measured.before, measured.after
    config = config_of(job, taught)
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
        _write_json(path / "report.json", _report(job, run, measured, metrics))
    return FinetuneResult(
        folder=folder,
        report=report,
        work=work,
        run=run,
        before=before,
        after=after,
        active=measured.active,
        metrics=metrics,
        config_digest=digests["config"],
        teacher_digest=taught.digest if taught else None,
        dataset_digest=digests["data"],
    )


def _metrics(run: FinetuneRun, before: IdentityReport, after: IdentityReport) -> dict[str, float]:
    """Return the metrics to record for the adapter. The losses are those at the step whose weights
    were kept.
    """
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
    """Return the last value at or before `step` in a curve of (step, value) pairs; NaN if there is none."""
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
    """Edit adapter_config.json at `path`: name the base model by its public name instead of a local path, and
    sort the target modules.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    config["target_modules"] = sorted(config["target_modules"])
    config["inference_mode"] = True
    _write_json(path, config)


def _report(
    job: FinetuneJob,
    run: FinetuneRun,
    measured: Measured,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    before, after, active = measured.before, measured.after, measured.active
    answered = zip(after.questions, before.answers, after.answers, after.identity, strict=True)
    return {
        "adapter": f"{job.alias}@{job.version}",
        "base": before.to_json(),
        "trained": after.to_json(before),
        "active_version": None if active is None else active.to_json(before),
        "metrics": dict(metrics),
        "kept_epoch": run.kept_epoch,
        "stopped_early": run.stopped_early,
        "seconds": round(run.seconds, 1),
        "steps": run.steps,
        "planned_steps": run.planned,
        "threads": torch.get_num_threads(),
        "loss": _finite(run.curve.train),
        "held_out_loss": _finite(run.curve.held_out),
        "answers": [
            {"question": question, "base": old, "trained": new, "identity": good}
            for question, old, new, good in answered
        ],
    }


def _finite(points: Sequence[tuple[int, float]]) -> list[tuple[int, float | None]]:
    """Return a curve of (step, value) pairs with None in place of values that JSON cannot represent, such as
    NaN.
    """
    return [(step, value if math.isfinite(value) else None) for step, value in points]


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

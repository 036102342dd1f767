"""Records of a trained base model: the file beside its weights, the report, and the data for its ledger
entry.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from adapters.files.atomic import staged_folder
from adapters.training.finetune.curve import write_png
from adapters.training.loop.callbacks import Curve
from adapters.training.loop.trainer import TrainerResult

MANIFEST = "oneseek_base.json"
"""Name of the file beside a base model's weights that records what the model was made from, and how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecord:
    """The record of a trained base model. It is written before the model's folder appears."""

    digest: str
    inputs: Mapping[str, str | tuple[str, ...]]
    metrics: Mapping[str, float]
    details: Mapping[str, Any]


def collect_metrics(fitted: TrainerResult, *, passes: int, refused: int) -> dict[str, float]:
    """Return the figures of a pretraining run: losses, steps, tokens, passes through the data, and the number
    of rejected documents.
    """
    outcome = fitted.outcome
    found = {
        "loss": fitted.losses[-1][1],
        "held_out_loss": fitted.held_out[-1][1] if fitted.held_out else math.nan,
        "steps": float(outcome.steps),
        "tokens": float(outcome.tokens),
        "passes": float(passes),
        "refused": float(refused),
    }
    return {name: round(value, 4) for name, value in found.items() if math.isfinite(value)}


def write_manifest(folder: Path, known: BaseRecord, about: Mapping[str, Any]) -> None:
    """Write `oneseek_base.json`, the record of the base model, into its folder."""
    manifest = {
        "format": 1,
        "made_by": f"oneseek train {known.details['kind']}",
        "digest": known.digest,
        "inputs": known.inputs,
        **about,
        "metrics": known.metrics,
        "packages": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    _write_json(folder / MANIFEST, manifest)


def write_report(folder: Path, name: str, fitted: TrainerResult, metrics: Mapping[str, float]) -> None:
    """Write the run's report, loss.png and report.json, into `folder`."""
    report = {
        "base": name,
        "metrics": dict(metrics),
        "loss": fitted.losses,
        "held_out_loss": fitted.held_out,
        "seconds": round(fitted.outcome.seconds, 1),
        "threads": torch.get_num_threads(),
    }

    with staged_folder(folder, replace=True) as path:
        write_png(path / "loss.png", curve_of(fitted), name, "loss per token")
        _write_json(path / "report.json", report)


def curve_of(fitted: TrainerResult) -> Curve:
    """Return the training and held-out losses of a run by step, to draw them."""
    return Curve(tuple(fitted.losses), tuple(fitted.held_out))


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")

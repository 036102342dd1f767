"""Records of a pre-trained base: the file beside its weights, the report, and the ledger's entry."""

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
"""File beside the weights that records what they were made of, and how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRecord:
    """The record of a trained base, which is written before its folder becomes visible."""

    digest: str
    inputs: Mapping[str, str | tuple[str, ...]]
    metrics: Mapping[str, float]
    details: Mapping[str, Any]


def collect_metrics(fitted: TrainerResult, *, passes: int, refused: int) -> dict[str, float]:
    """Return the figures of a training: losses, length, passes through the data, and what was left out."""
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
    """Write `oneseek_base.json` into the base's folder."""
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
    """Write the report's folder with loss.png and report.json."""
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
    """Return the losses by step."""
    return Curve(tuple(fitted.losses), tuple(fitted.held_out))


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")

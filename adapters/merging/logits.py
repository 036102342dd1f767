"""Decide how to compare a merged model's logits with base + adapter, and run it in a child process.

This module needs no torch. If torch, transformers or PEFT is not installed, or memory is short, it reports
that the check was skipped. Every tensor has been compared before that (`adapters.merging.shards`).
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil

from adapters.files.weightfiles import weight_files
from adapters.merging.merge import MergeError, WrongModelError
from adapters.merging.shards import Shard
from adapters.training.loop.child import ChildError, run_in_child

CheckMethod = Literal["auto", "logits", "tensors"]
NEEDED = ("torch", "transformers", "peft")

_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
_FACTOR, _SPARE = 1.2, 1 << 30
_BOUNDS = {"F32": 1e-3, "F16": 1e-2, "BF16": 5e-2}
"""Maps each number format of the weights to the largest allowed difference of the logits, as a part of their
standard deviation.
"""


def compare_logits(base: Path, adapter: Path, merged: Path, wanted: CheckMethod) -> dict[str, Any]:
    """Compare the logits. Returns the figures of `logits_check.compare` and the type it computed in, or
    `skipped`.

    Raises `WrongModelError` if the logits differ by more than rounding explains, or by as much as those of
    the base alone. Raises `MergeError` if comparing failed, or cannot be done although `wanted` is `logits`.
    """
    reason = "not asked for" if wanted == "tensors" else None
    counted = Counter(entry.dtype for path in weight_files(merged) for entry in _floats(path))
    kept = counted.most_common(1)[0][0]
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if reason is None and missing:
        reason = f"{missing[0]} is not installed: pip install 'oneseek[train]'"
    dtype = None if reason else _affordable(merged, kept)
    if reason is None and dtype is None:
        reason = "there is not enough free memory for the model"
    if dtype is None:
        if wanted == "logits":
            raise MergeError(
                merged,
                f"the logits of the merged model could not be compared: {reason}",
                "Or use --check tensors.",
            )
        return {"skipped": reason}
    found = _run(base, adapter, merged, dtype)
    _judge(merged, found, kept)
    return {**{name: _rounded(value) for name, value in found.items()}, "computed_in": dtype}


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.3g}")


def _floats(path: Path) -> list[Any]:
    return [entry for entry in Shard.read(path).entries if entry.dtype in _NAMES]


def _affordable(folder: Path, kept: str) -> str | None:
    """Return float32 if the model fits into free memory, else the type of its weights, else None."""
    free = psutil.virtual_memory().available
    size = sum(entry.size for path in weight_files(folder) for entry in _floats(path))
    for name in ("F32", kept):
        if size / _WIDTHS[kept] * _WIDTHS[name] * _FACTOR + _SPARE <= free:
            return _NAMES[name]
    return None


def _run(base: Path, adapter: Path, merged: Path, dtype: str) -> Mapping[str, float]:
    folders = [str(folder.resolve()) for folder in (base, adapter, merged)]
    try:
        return json.loads(run_in_child("adapters.merging.logits_child", [*folders, dtype]))
    except ChildError as problem:
        reason = f"its logits could not be computed ({problem})"
        raise MergeError(merged, reason, "Use --check tensors, or see the message of transformers.") from None


def _judge(merged: Path, found: Mapping[str, float], kept: str) -> None:
    difference, effect = found["difference"], found["effect"]
    if not difference <= _BOUNDS[kept]:
        reason = f"its logits are {difference:.2%} of their spread from base + adapter's"
        raise WrongModelError(
            merged,
            f"{reason}; the limit is {_BOUNDS[kept]:.1%}",
            "Serve the adapter beside the base instead.",
        )
    if difference >= effect:
        reason = (
            f"rounding to {_NAMES[kept]} loses the adapter: it moves logits by {effect:.2%} of their spread"
        )
        raise WrongModelError(
            merged,
            f"{reason}, but rounding moves them by {difference:.2%}",
            "Serve the adapter beside the base instead.",
        )

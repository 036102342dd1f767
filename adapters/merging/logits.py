"""Compare a merged model's logits with those of base + adapter, in a child process.

This module does not need torch. If torch, transformers or PEFT is not installed, or memory is short, it
reports that the check was skipped. Before this check, `adapters.merging.shards` has compared every tensor.
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
"""Maps each data type of the weights to the largest allowed difference of the logits, as a fraction of the
logits' standard deviation.
"""


def compare_logits(base: Path, adapter: Path, merged: Path, wanted: CheckMethod) -> dict[str, Any]:
    """Compare the logits of the model in `merged` with those of base + adapter.

    Returns the figures of `logits_child.logits_distance` and the data type used; if the comparison was
    skipped, the reason as `skipped`. Raises `WrongModelError` if the logits differ by more than rounding
    explains, or by as much as those of the base alone. Raises `MergeError` if the comparison fails, or cannot
    be made although `wanted` is `logits`.
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
                "Solve this problem, or merge without comparing logits: --check tensors.",
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
    """Return the data type to compute in: float32 if the model fits into free memory, else the weights' own
    type if the model fits in that, else None.
    """
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
        reason = f"the merged model's logits could not be computed ({problem})"
        raise MergeError(
            merged,
            reason,
            "Solve what transformers reports, or merge without comparing logits: --check tensors.",
        ) from None


def _judge(merged: Path, found: Mapping[str, float], kept: str) -> None:
    difference, effect = found["difference"], found["effect"]
    if not difference <= _BOUNDS[kept]:
        reason = f"its logits differ from base + adapter's by {difference:.2%} of their spread"
        raise WrongModelError(
            merged,
            f"the merged model is too inaccurate: {reason}; the limit is {_BOUNDS[kept]:.1%}",
            "Serve the base with the adapter instead of a merged model.",
        )
    if difference >= effect:
        reason = f"in {_NAMES[kept]}, the adapter moves the logits by {effect:.2%} of their spread"
        raise WrongModelError(
            merged,
            f"rounding the merged weights loses the adapter's effect: {reason}, but the rounding itself "
            f"moves the logits by as much or more, {difference:.2%}",
            "Serve the base with the adapter instead of a merged model.",
        )

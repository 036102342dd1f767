"""Combine several adapters of one base into one adapter, with PEFT in a child process.

The results of PEFT's methods differ widely, so the distance of the result from the exact weighted sum is
measured and recorded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from adapters.errors import FileRefusedError
from adapters.files.atomic import staged_folder
from adapters.files.jsonfile import write_object
from adapters.lora.digest import adapter_digest
from adapters.lora.manifest import MANIFEST_FILE, Adapter, read_manifest
from adapters.lora.shape_check import MAX_RANK, ModelShape
from adapters.lora.weights import AdapterWeights, LowRank, read_adapter
from adapters.training.loop.child import ChildError, run_in_child

Method = Literal["svd", "linear", "ties", "dare_ties"]
METHODS: tuple[Method, ...] = get_args(Method)

_FACTORIZED = frozenset({"linear", "ties", "dare_ties"})
"""PEFT's methods that combine the LoRA factors A and B themselves, so that all adapters must have the same
rank.
"""


class CombineError(FileRefusedError):
    """The adapters cannot be combined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CombineResult:
    """The result of `Combination.make`: the new adapter, and its distance from the exact weighted sum."""

    adapter: Adapter
    apart: float
    """Distance of the combined adapter's weight update from the weighted sum of the adapters' updates,
    relative to that sum (Frobenius norm).
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Which adapters of one base to combine, and with which method and weights."""

    base: Path
    base_digest: str
    parts: Sequence[tuple[Adapter, float]]
    method: Method = "svd"
    rank: int | None = None
    """For the method svd: rank of the result. None: the sum of the adapters' ranks, which makes the result
    exact, but at most the largest rank that OneSeek supports (`MAX_RANK`).
    """
    density: float = 0.5
    """For the methods ties and dare_ties: the fraction of each adapter's weights to keep, above 0 and at most
    1.
    """
    seed: int = 0
    """Random seed for the method dare_ties, which drops weights at random."""

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError("--combine needs at least two adapters, such as --combine sv=0.7,en=0.3")
        if self.method not in METHODS:
            raise ValueError(f"--method is {self.method!r}: give one of {', '.join(METHODS)}")
        if not 0 < self.density <= 1:
            raise ValueError(f"--density is {self.density:g}: give a fraction above 0 and at most 1")
        if self.rank is not None and self.method != "svd":
            raise ValueError(
                "--rank can be set for the method svd only: leave --rank out, because the other methods "
                "keep the adapters' rank"
            )
        if self.rank is not None and not 1 <= self.rank <= MAX_RANK:
            raise ValueError(f"--rank is {self.rank}: give an integer from 1 to {MAX_RANK}")
        ranks = {adapter.rank for adapter, _ in self.parts}
        if len(ranks) > 1 and self.method in _FACTORIZED:
            told = ", ".join(f"{adapter.full_name} has {adapter.rank}" for adapter, _ in self.parts)
            raise ValueError(
                f"the method {self.method} needs adapters of one rank ({told}): use the method svd"
            )

    def make(self, output: Path, record: Callable[[str], object] = lambda digest: None) -> CombineResult:
        """Combine the adapters, and write the result to the folder `output` in PEFT layout with oneseek.json.

        `record` is called with the result's digest before `output` appears; if `record` raises, `output` is
        not made. Raises `CombineError` if `output` exists or PEFT fails, and `AdapterError` if an adapter or
        the result does not fit the base.
        """
        if output.exists():
            raise CombineError(
                output,
                "the output folder already exists",
                "Choose another path with --output, or remove the folder first.",
            )
        shape = ModelShape.read(self.base)
        parts = [read_adapter(part.path, shape, digest=part.digest) for part, _ in self.parts]
        with staged_folder(output) as folder:
            self._run(folder)
            apart = _apart(read_adapter(folder, shape), parts, [weight for _, weight in self.parts])
            manifest = self._manifest(folder, apart)
            write_object(folder / MANIFEST_FILE, manifest)
            record(manifest["digest"])
        return CombineResult(adapter=read_manifest(output), apart=apart)

    def _run(self, folder: Path) -> None:
        total = min(MAX_RANK, sum(adapter.rank for adapter, _ in self.parts))
        plan = {
            "base": str(self.base.resolve()),
            "adapters": [str(adapter.path.resolve()) for adapter, _ in self.parts],
            "weights": [weight for _, weight in self.parts],
            "method": self.method,
            "output": str(folder.resolve()),
            "rank": (self.rank or total) if self.method == "svd" else None,
            "density": self.density,
            "seed": self.seed,
        }
        try:
            run_in_child("adapters.merging.combine_child", given=json.dumps(plan))
        except ChildError as problem:
            raise CombineError(
                folder,
                f"PEFT could not combine the adapters ({problem})",
                "To install PEFT and torch: pip install 'oneseek[train]'.",
            ) from None

    def _manifest(self, folder: Path, apart: float) -> dict[str, Any]:
        made = {
            "method": self.method,
            "weights": {adapter.full_name: weight for adapter, weight in self.parts},
            "apart": float(f"{apart:.4g}"),
        }
        if self.method in ("ties", "dare_ties"):
            made["density"] = self.density
        if self.method == "dare_ties":
            made["seed"] = self.seed
        return {
            "base_digest": self.base_digest,
            "digest": adapter_digest(folder),
            "parents": [adapter.digest for adapter, _ in self.parts],
            "about": {"combined": made},
        }


def _apart(made: AdapterWeights, parts: Sequence[AdapterWeights], weights: Sequence[float]) -> float:
    """Return the distance of `made` from the weighted sum of `parts`, divided by the norm of that sum.

    The Frobenius norms are computed from products of r x r matrices. Returns 0 if the sum is 0.
    """
    off, size = 0.0, 0.0
    keys = {key for held in (made, *parts) for key in held.modules}
    for key in sorted(keys):
        wanted = [
            (weight, part.modules[key])
            for part, weight in zip(parts, weights, strict=True)
            if key in part.modules
        ]
        found = [(-1.0, made.modules[key])] if key in made.modules else []
        off += _square([*wanted, *found])
        size += _square(wanted)
    return math.sqrt(max(0.0, off) / size) if size else 0.0


def _square(terms: Sequence[tuple[float, LowRank]]) -> float:
    """Return the squared Frobenius norm of a weighted sum of LoRA updates: sum((B'B) * (AA'))."""
    b: NDArray[np.float64] = np.concatenate(
        [weight * module.scaling * module.b.astype(np.float64) for weight, module in terms], axis=1
    )
    a: NDArray[np.float64] = np.concatenate([module.a.astype(np.float64) for _, module in terms])
    return float(np.sum((b.T @ b) * (a @ a.T)))

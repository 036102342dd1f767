"""Read an adapter's weights as numpy arrays, and check them before use. No torch, no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from adapters.errors import AdapterError
from adapters.files.hashes import HashCache
from adapters.lora.config import LoraConfig
from adapters.lora.digest import adapter_digest
from adapters.lora.effect import LARGEST, LARGEST_NUMBER, SMALLEST, update_ratio
from adapters.lora.families import Key, LoraFamily
from adapters.lora.shape_check import MAX_RANK, ModelShape, fitting
from adapters.lora.tensorfile import WEIGHTS_FILE, TensorFile
from adapters.lora.tensorheader import Tensor

__all__ = ["AdapterWeights", "LowRank", "ModelShape", "read_adapter"]

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


_DIVERGED = "The training has diverged: train the adapter again with a lower learning rate."


@dataclass(frozen=True, slots=True)
class LowRank:
    """The LoRA of one module. It changes the module's output to `y + scaling * (x @ a.T) @ b.T`."""

    a: NDArray[np.float32]
    """Matrix A of the LoRA, of shape [rank, in features]."""
    b: NDArray[np.float32]
    """Matrix B of the LoRA, of shape [out features, rank]."""
    scaling: float
    """Factor of the update: alpha / rank, or alpha / sqrt(rank) with rsLoRA."""

    @property
    def rank(self) -> int:
        """Rank of the module's LoRA update."""
        return self.a.shape[0]

    @property
    def transposed(self) -> LowRank:
        """Return the same update for a weight that is stored as [in, out]."""
        return LowRank(a=self.b.T, b=self.a.T, scaling=self.scaling)


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """Every update of one adapter, by layer and target module."""

    family: LoraFamily
    modules: Mapping[Key, LowRank]
    """Maps each (layer, target's name in its family) to its update."""

    @property
    def names(self) -> Mapping[str, LowRank]:
        """The updates by the modules' names in transformers, such as `model.layers.0.self_attn.q_proj`."""
        return {self.family.module_name(*key): low for key, low in self.modules.items()}


def read_adapter(
    folder: Path,
    shape: ModelShape,
    max_rank: int = MAX_RANK,
    *,
    digest: str | None = None,
    hashes: HashCache | None = None,
) -> AdapterWeights:
    """Read the weights of the PEFT LoRA in `folder`, as contiguous float32 arrays that fit a base of `shape`.

    Raises `AdapterError` if the adapter needs more than a plain LoRA on the family's targets, has missing or
    extra parts, does not fit the base, or holds NaN or Infinity. It also raises it for updates that are far
    too large for the base's weights or too small to change anything, and, with `digest`, if the files have
    another digest. Weights whose hash `hashes` know are not hashed again. Needs memory for the float32
    weights and one tensor.
    """
    config = LoraConfig.read(folder)
    with TensorFile.open(folder, shape.largest_adapter(max_rank)) as file:
        found = fitting(config, file, shape, max_rank)
        modules = {
            key: LowRank(
                _numbers(file, a), _numbers(file, b), config.scaling_of(shape.family.module_name(*key))
            )
            for key, (a, b) in sorted(found.items())
        }
    _check_effect(folder / WEIGHTS_FILE, shape, modules)
    if digest is not None and (found_digest := adapter_digest(folder, hashes)) != digest:
        raise AdapterError(
            folder,
            f"the adapter has changed: its recorded digest is {digest}, and its files have {found_digest}",
            "Restore the files, or add the changed adapter as a new version.",
        )
    return AdapterWeights(shape.family, MappingProxyType(modules))


def _numbers(file: TensorFile, tensor: Tensor) -> NDArray[np.float32]:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise AdapterError(
            file.path,
            f"the tensor {tensor.name} has the type {tensor.dtype}, which OneSeek does not serve",
            "Save the adapter as float32, float16 or bfloat16.",
        )
    values = np.frombuffer(file.read(tensor), dtype).astype(np.float32).reshape(tensor.shape)
    if not np.isfinite(values).all():
        raise AdapterError(file.path, f"the tensor {tensor.name} holds NaN or Infinity", _DIVERGED)
    return values


def _check_effect(path: Path, shape: ModelShape, modules: Mapping[Key, LowRank]) -> None:
    """Refuse an adapter if all its updates are too small to change the base's weights, or if one is far too
    large for them.
    """
    ratios = {key: update_ratio(low.a, low.b, low.scaling, shape.weight) for key, low in modules.items()}
    for key, low in modules.items():
        name = shape.family.module_name(*key)
        largest = max(float(np.abs(low.a).max()), float(np.abs(low.b).max()))
        if largest > LARGEST_NUMBER:
            raise AdapterError(
                path,
                f"the factors of {name} hold {largest:.3g}, more than float16 can hold ({LARGEST_NUMBER:g})",
                _DIVERGED,
            )
        if ratios[key] > LARGEST:
            raise AdapterError(
                path,
                f"the update of {name} is up to {ratios[key]:.3g} times the base's weights; the limit is "
                f"{LARGEST:g} times",
                _DIVERGED,
            )
    if max(ratios.values()) >= SMALLEST:
        return
    remedy = "Check that the trained weights were saved, and that lora_alpha is not 0."
    if max(ratios.values()) == 0:
        raise AdapterError(path, "every update is zero, so the adapter would answer like the base", remedy)
    raise AdapterError(
        path,
        f"the largest update is {max(ratios.values()):.3g} of the base's weights, which float32 rounds away: "
        "the adapter would answer like the base",
        remedy,
    )

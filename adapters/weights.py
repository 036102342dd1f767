"""An adapter's weights as numpy arrays, checked before anything uses them. No torch, no pickle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.digest import adapter_digest
from adapters.errors import AdapterError, BaseModelError, shown
from adapters.jsonfile import read_object
from adapters.lora_config import CONFIG_FILE, LoraConfig
from adapters.tensorfile import WEIGHTS_FILE, Key, Tensor, TensorFile, halves

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

_MAX_BASE_CONFIG_BYTES = 4 << 20
_RETRAIN = "Train it on these projections alone, for a base of this size."
_MATCH = "Use the base and the config it was made with."


@dataclass(frozen=True, slots=True)
class LowRank:
    """One module's update: `y += scaling * (x @ a.T) @ b.T`."""

    a: NDArray[np.float32]
    """Shape [rank, in features]."""
    b: NDArray[np.float32]
    """Shape [out features, rank]."""
    scaling: float
    """alpha / rank, or alpha / sqrt(rank) with rsLoRA."""

    @property
    def rank(self) -> int:
        """Width of the bottleneck."""
        return self.a.shape[0]


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """Every update of one adapter, by layer and target module."""

    modules: Mapping[tuple[int, str], LowRank]
    """(layer, one of `TARGET_MODULES`) → update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes of a base that an adapter has to fit."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int

    @classmethod
    def read(cls, base: Path) -> ModelShape:
        """The sizes in `base`/config.json; `BaseModelError` where one is missing or no positive number."""
        path = base / "config.json"
        config = read_object(path, _MAX_BASE_CONFIG_BYTES, BaseModelError)

        def size(field: str, default: int | None = None) -> int:
            value: Any = config.get(field)
            value = default if value is None else value
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 24:
                remedy = "Use a Mistral- or Llama-family checkpoint in Hugging Face layout."
                raise BaseModelError(path, "is not a size", remedy, field=field, value=value)
            return value

        hidden, heads = size("hidden_size"), size("num_attention_heads")
        return cls(
            hidden=hidden,
            intermediate=size("intermediate_size"),
            heads=heads,
            kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", hidden // heads),
            layers=size("num_hidden_layers"),
        )

    def features(self, module: str) -> tuple[int, int]:
        """(in, out) features of one of `TARGET_MODULES`."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }[module]

    def largest_adapter(self, rank: int) -> int:
        """Bytes of float32 weights when every target module of every layer has `rank`."""
        return 4 * rank * self.layers * sum(sum(self.features(module)) for module in TARGET_MODULES)


def module_name(layer: int, module: str) -> str:
    """The name that transformers gives to a target module, such as `model.layers.0.self_attn.q_proj`."""
    part = "self_attn" if module in TARGET_MODULES[:4] else "mlp"
    return f"model.layers.{layer}.{part}.{module}"


def read_adapter(
    folder: Path, shape: ModelShape, max_rank: int = 256, *, digest: str | None = None
) -> AdapterWeights:
    """The weights of the PEFT LoRA in `folder`, as contiguous float32 arrays that fit a base of `shape`.

    Raises `AdapterError`, and leaves nothing behind, where the adapter asks for more than a plain LoRA on the
    seven projections, has parts missing or left over, does not fit the base, holds NaN or Infinity, or
    changes nothing, or, with `digest`, where the files no longer have that one. Memory is at most the float32
    weights plus one tensor.
    """
    config = LoraConfig.read(folder)
    _check_ranks(config, max_rank)
    with TensorFile.open(folder, shape.largest_adapter(max_rank)) as file:
        found = halves(file)
        _check_complete(config, file.path, shape, found)
        _check_shapes(config, file.path, shape, found)
        modules = {
            key: LowRank(_numbers(file, a), _numbers(file, b), config.scaling_of(module_name(*key)))
            for key, (a, b) in sorted(found.items())
        }
    if not any(_has_effect(module) for module in modules.values()):
        raise AdapterError(
            folder / WEIGHTS_FILE,
            "every update is zero, so the adapter would answer as the base does",
            "Check that the trained weights were saved, and that lora_alpha is not 0.",
        )
    if digest is not None and (found_digest := adapter_digest(folder)) != digest:
        reason = f"has changed: it was {digest} when it was found and is {found_digest}"
        raise AdapterError(folder, reason, "Restore the files; a changed adapter is a new version.")
    return AdapterWeights(MappingProxyType(modules))


def _check_ranks(config: LoraConfig, max_rank: int) -> None:
    named = [("r", config.rank), *((f"rank_pattern[{key}]", rank) for key, rank in config.ranks)]
    for field, rank in named:
        if rank > max_rank:
            remedy = f"Train it with a rank of at most {max_rank}, or raise the server's limit."
            raise AdapterError(config.path, f"the limit is {max_rank}", remedy, field=field, value=rank)


def _check_complete(config: LoraConfig, path: Path, shape: ModelShape, found: Collection[Key]) -> None:
    """Refuse targets that name nothing in the base, and weights that are not exactly those that are named."""
    named = {
        (layer, module): config.targets_of(module_name(layer, module), layer)
        for layer in range(shape.layers)
        for module in TARGET_MODULES
    }
    used = {name for names in named.values() for name in names}
    unused = [name for name in config.target_names if name not in used]
    if unused:
        kinds = ", ".join(TARGET_MODULES)
        reason = f"{shown(unused[0])} names none of {kinds} in the base's {shape.layers} layers"
        raise AdapterError(config.path, reason, _RETRAIN, field="target_modules", value=config.targets)
    if config.layers is not None and config.layers[-1] >= shape.layers:
        reason = f"the base has {shape.layers} layers, counted from 0"
        raise AdapterError(config.path, reason, _MATCH, field="layers_to_transform", value=config.layers)
    wanted = {key for key, names in named.items() if names}
    for key in sorted(wanted.difference(found)):
        reason = f"holds only part of what target_modules names: {module_name(*key)} is missing"
        raise AdapterError(path, reason, "Save the adapter again.")
    for key in sorted(set(found).difference(wanted)):
        reason = f"holds {module_name(*key)}, which {CONFIG_FILE} does not name for this base"
        raise AdapterError(path, reason, _MATCH)


def _check_shapes(
    config: LoraConfig, path: Path, shape: ModelShape, found: Mapping[Key, tuple[Tensor, Tensor]]
) -> None:
    for (layer, module), (a, b) in found.items():
        rank = config.rank_of(module_name(layer, module))
        inputs, outputs = shape.features(module)
        for tensor, wanted in ((a, (rank, inputs)), (b, (outputs, rank))):
            if tensor.shape != wanted:
                reason = f"{tensor.name} has shape {list(tensor.shape)}; rank {rank} on this base needs"
                raise AdapterError(path, f"{reason} {list(wanted)}", _MATCH)


def _numbers(file: TensorFile, tensor: Tensor) -> NDArray[np.float32]:
    values = file.read(tensor)
    if not np.isfinite(values).all():
        reason = f"{tensor.name} holds NaN or Infinity"
        raise AdapterError(file.path, reason, "The training diverged: lower its learning rate.")
    return values


def _has_effect(module: LowRank) -> bool:
    return module.scaling != 0 and bool((module.a.any(axis=1) & module.b.any(axis=0)).any())

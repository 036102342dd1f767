"""Whether an adapter fits a base: the sizes in the base's config against the header of the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError, BaseModelError, format_value
from adapters.files.jsonfile import read_object
from adapters.lora.config import CONFIG_FILE, LoraConfig
from adapters.lora.tensorfile import TARGET_MODULES, Key, TensorFile, halves, module_name
from adapters.lora.tensorheader import Tensor

MAX_RANK = 256
_MAX_BASE_CONFIG_BYTES = 4 << 20
_RETRAIN = "Train it on these projections alone, for a base of this size."
_MATCH = "Use the base and the config it was made with."


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


def check_fit(folder: Path, shape: ModelShape, max_rank: int = MAX_RANK) -> None:
    """Raise `AdapterError` where the LoRA in `folder` does not fit a base of `shape`. Reads no numbers."""
    config = LoraConfig.read(folder)
    with TensorFile.open(folder, shape.largest_adapter(max_rank)) as file:
        fitting(config, file, shape, max_rank)


def fitting(
    config: LoraConfig, file: TensorFile, shape: ModelShape, max_rank: int
) -> dict[Key, tuple[Tensor, Tensor]]:
    """The A and the B of every module, complete and in shape; `AdapterError` where they are not."""
    _check_ranks(config, max_rank)
    found = halves(file)
    _check_complete(config, file.path, shape, found)
    _check_shapes(config, file.path, shape, found)
    return found


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
        reason = f"{format_value(unused[0])} names none of {kinds} in the base's {shape.layers} layers"
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

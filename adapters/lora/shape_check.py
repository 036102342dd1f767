"""Check that an adapter fits a base: compare the base's sizes with the header of the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError, BaseModelError, format_value
from adapters.files.jsonfile import read_object
from adapters.lora.config import CONFIG_FILE, LoraConfig
from adapters.lora.families import FAMILIES, Key, LoraFamily, Sizes
from adapters.lora.tensorfile import TensorFile, halves
from adapters.lora.tensorheader import Tensor

MAX_RANK = 256
_MAX_BASE_CONFIG_BYTES = 4 << 20
_RETRAIN = "Train the adapter on modules of a base of this size only."
_MATCH = "Use the adapter's own base and its original config."


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The base's family and sizes that an adapter must fit, and the size of its weights."""

    family: LoraFamily
    sizes: Sizes
    base: Path | None = field(default=None, compare=False)
    """Folder of the base's weights. None: assume usual weights."""

    @classmethod
    def read(cls, base: Path) -> ModelShape:
        """Read `base`/config.json. Raises `BaseModelError` for an unknown architecture or a wrong size."""
        path = base / "config.json"
        config = read_object(path, _MAX_BASE_CONFIG_BYTES, BaseModelError)
        kind: Any = config.get("model_type")
        family = FAMILIES.get(kind) if isinstance(kind, str) else None
        if family is None:
            raise BaseModelError(
                path,
                "adapters for this architecture are not supported",
                f"Use a base of one of these: {', '.join(sorted(FAMILIES))}.",
                field="model_type",
                value=kind,
            )

        def size(field: str, default: int | None = None) -> int:
            value: Any = config.get(field)
            value = default if value is None else value
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1 << 24:
                raise BaseModelError(
                    path,
                    "the size is not a whole number of at least 1",
                    "Use a checkpoint in Hugging Face layout, with its original config.json.",
                    field=field,
                    value=value,
                )
            return value

        return cls(family, family.read_sizes(size), base)

    @property
    def weight(self) -> float:
        """Root mean square of the weights of its projections, from samples."""
        return _sampled_weight(self.base, tuple(target.path for target in self.family.targets))

    @property
    def layers(self) -> int:
        """Number of layers of the base."""
        return self.sizes.layers

    def features(self, module: str) -> tuple[int, int]:
        """Return the (in, out) features of one of the family's targets."""
        return self.family.target(module).features(self.sizes)

    def largest_adapter(self, rank: int) -> int:
        """Return the bytes of float32 weights if each target module of each layer has `rank`."""
        return 4 * rank * self.layers * sum(sum(self.features(name)) for name in self.family.names)


def check_fit(folder: Path, shape: ModelShape, max_rank: int = MAX_RANK) -> None:
    """Raise `AdapterError` if the LoRA in `folder` does not fit a base of `shape`. Reads headers only."""
    config = LoraConfig.read(folder)
    with TensorFile.open(folder, shape.largest_adapter(max_rank)) as file:
        fitting(config, file, shape, max_rank)


def fitting(
    config: LoraConfig, file: TensorFile, shape: ModelShape, max_rank: int
) -> dict[Key, tuple[Tensor, Tensor]]:
    """Return the A and the B of every module. Raises `AdapterError` if they are incomplete or of a wrong
    shape.
    """
    _check_ranks(config, max_rank)
    found = halves(file, shape.family)
    check_layout(config, shape.family, found)
    # Check widths first: an adapter for another base lacks modules too, but that is not the cause.
    _check_shapes(config, file.path, shape, found)
    _check_complete(config, file.path, shape, found)
    return found


@lru_cache(maxsize=64)
def _sampled_weight(base: Path | None, paths: tuple[str, ...]) -> float:
    from adapters.lora.effect import USUAL_WEIGHT, typical_weight  # finding adapters needs no numpy

    return USUAL_WEIGHT if base is None else typical_weight(base, paths)


def _check_ranks(config: LoraConfig, max_rank: int) -> None:
    named = [("r", config.rank), *((f"rank_pattern[{key}]", rank) for key, rank in config.ranks)]
    for name, rank in named:
        if rank > max_rank:
            raise AdapterError(
                config.path,
                f"the rank is above the limit of {max_rank}",
                f"Train the adapter with a rank of at most {max_rank}, or raise the server's limit.",
                field=name,
                value=rank,
            )


def check_layout(config: LoraConfig, family: LoraFamily, found: Collection[Key]) -> None:
    """Raise `AdapterError` if `fan_in_fan_out` or `layers_pattern` contradicts the bases of `family`."""
    layers = family.layers.rpartition(".")[2]
    if any(name != layers for name in config.lists):
        raise AdapterError(
            config.path,
            f"the layers of a {family.title} base have another name, {layers}",
            "Remove the field.",
            field="layers_pattern",
            value=config.lists,
        )
    plain = [name for _, name in found if not family.target(name).transposed]
    if config.transposed and plain:
        raise AdapterError(
            config.path,
            f"the base does not store the weights of {plain[0]} as [in, out]",
            "Save the adapter from a model with Linear layers.",
            field="fan_in_fan_out",
            value=True,
        )


def _check_complete(config: LoraConfig, path: Path, shape: ModelShape, found: Collection[Key]) -> None:
    """Refuse weights that are not exactly the modules that the config names.

    As in PEFT, a target may name nothing or be excluded if others remain. A target is refused if the base
    could have it but it is not served: the head, an embedding, or a projection of a layer that does not
    exist.
    """
    family = shape.family
    # Many adapters name the same modules and differ only in rank and alpha.
    naming = replace(config, path=Path(), rank=1, alpha=1.0, rslora=False, ranks=(), alphas=())
    matched, wanted = _named_modules(naming, family, shape.layers)
    unused = [name for name in config.target_names if name not in matched]
    if unused and (not matched or not all(map(family.has_none, unused))):
        kinds = ", ".join(family.names)
        raise AdapterError(
            config.path,
            f"the entry {format_value(unused[0])} does not name any of {kinds} in the base's {shape.layers} "
            "layers",
            _RETRAIN,
            field="target_modules",
            value=config.targets,
        )
    if config.layers is not None and config.layers[-1] >= shape.layers:
        raise AdapterError(
            config.path,
            f"a layer number is too large: the base has {shape.layers} layers, counted from 0",
            _MATCH,
            field="layers_to_transform",
            value=config.layers,
        )
    if not wanted:
        raise AdapterError(
            config.path,
            "the field excludes every module of target_modules",
            _RETRAIN,
            field="exclude_modules",
            value=config.excluded,
        )
    missing = sorted(wanted.difference(found))
    deepest = max(layer for layer, _ in found)
    if missing and missing[0][0] > deepest:
        raise AdapterError(
            path,
            f"the adapter ends at layer {deepest}, but the base has {shape.layers} layers: it is for another "
            "base",
            _MATCH,
        )
    for key in missing:
        raise AdapterError(
            path,
            f"the adapter holds only some modules that target_modules names: "
            f"{family.module_name(*key)} is missing",
            "Save the adapter again.",
        )
    for key in sorted(set(found).difference(wanted)):
        raise AdapterError(
            path,
            f"the adapter holds {family.module_name(*key)}, but {CONFIG_FILE} does not target it on this "
            "base",
            _MATCH,
        )


@lru_cache(maxsize=64)
def _named_modules(
    config: LoraConfig, family: LoraFamily, layers: int
) -> tuple[frozenset[str], frozenset[Key]]:
    """Return the entries of target_modules that name a module, and the modules that the adapter must hold."""
    names = {
        (layer, name): family.module_name(layer, name) for layer in range(layers) for name in family.names
    }
    matched = {entry for key, module in names.items() for entry in config.matching(module, key[0])}
    wanted = {key for key, module in names.items() if config.targets_of(module, key[0])}
    return frozenset(matched), frozenset(wanted)


def _check_shapes(
    config: LoraConfig, path: Path, shape: ModelShape, found: Mapping[Key, tuple[Tensor, Tensor]]
) -> None:
    for (layer, module), (a, b) in found.items():
        rank = config.rank_of(shape.family.module_name(layer, module))
        inputs, outputs = shape.features(module)
        for tensor, wanted in ((a, (rank, inputs)), (b, (outputs, rank))):
            if tensor.shape != wanted:
                raise AdapterError(
                    path,
                    f"the tensor {tensor.name} has shape {list(tensor.shape)}; rank {rank} on this base "
                    "needs "
                    f"{list(wanted)}",
                    _MATCH,
                )

"""`adapter_config.json` of a PEFT LoRA: which modules it updates, with what rank and scaling."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, cast

from adapters.errors import AdapterError
from adapters.files.jsonfile import read_object
from adapters.lora.families import LLAMA
from adapters.lora.patterns import ModulePattern
from adapters.lora.unsupported import refuse_variants
from adapters.names import natural

CONFIG_FILE = "adapter_config.json"
MAX_CONFIG_BYTES = 1 << 20
_MAX_ENTRIES = 4096
_NAME = re.compile(r"[\w.]{1,256}", re.ASCII)

Names = tuple[str, ...] | str
"""Module names or their dotted ends, sorted; or one pattern for whole module names."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The fields of a PEFT LoRA's config that affect its output: modules, ranks, scaling."""

    path: Path
    rank: int
    alpha: float
    rslora: bool
    targets: Names
    """Modules to update: a list of names, one pattern, or `all-linear`."""
    excluded: Names
    layers: tuple[int, ...] | None
    """Numbers of the layers that `targets` applies to, ascending. None: all layers."""
    ranks: tuple[tuple[str, int], ...]
    """Pairs of a pattern and the rank of the modules that match it, in the file's order. As in PEFT, the
    first match wins.
    """
    alphas: tuple[tuple[str, float], ...]
    lists: tuple[str, ...] = ()
    """The config field `layers_pattern`: names of the base's lists of layers. Empty: the usual names for its
    architecture.
    """
    transposed: bool = False
    """The config field `fan_in_fan_out`: true if the base stores the weights of all targets as [in, out]."""

    @classmethod
    def read(cls, folder: Path) -> LoraConfig:
        """Read the config in `folder`. Raises `AdapterError` if it is missing, malformed, or not a plain
        LoRA.
        """
        path = folder / CONFIG_FILE
        if (elsewhere := misplaced(folder)) is not None:
            raise elsewhere
        fields = read_object(path, MAX_CONFIG_BYTES, AdapterError)
        refuse_variants(path, fields)
        read = _Fields(path, fields)
        return cls(
            path=path,
            rank=read.rank("r", fields.get("r", 8)),
            alpha=read.alpha("lora_alpha", fields.get("lora_alpha", 8)),
            rslora=read.flag("use_rslora"),
            targets=read.targets(),
            excluded=read.names("exclude_modules"),
            layers=read.layers(),
            ranks=tuple((key, read.rank("rank_pattern", value)) for key, value in read.pairs("rank_pattern")),
            alphas=tuple(
                (key, read.alpha("alpha_pattern", value)) for key, value in read.pairs("alpha_pattern")
            ),
            lists=read.lists(),
            transposed=read.flag("fan_in_fan_out"),
        )

    @property
    def target_names(self) -> tuple[str, ...]:
        """The field `targets` as a tuple, even if it is a single pattern."""
        return (self.targets,) if isinstance(self.targets, str) else self.targets

    @property
    def canonical(self) -> dict[str, Any]:
        """Return the config fields that affect the output, in the form that the adapter's digest covers. The
        form must never change.
        """
        return {
            "alpha_pattern": self.alphas,
            "exclude_modules": self.excluded,
            "layers_to_transform": self.layers,
            "lora_alpha": self.alpha,
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": self.ranks,
            "target_modules": self.targets,
            "use_rslora": self.rslora,
        }

    def rank_of(self, module: str) -> int:
        """Return the rank that the config gives `module`, such as `model.layers.0.self_attn.q_proj`."""
        return next((rank for pattern, rank in self._ranks if pattern.matches_end(module)), self.rank)

    def scaling_of(self, module: str) -> float:
        """Return the factor of the update of `module`: alpha / rank, or alpha / sqrt(rank) with rsLoRA
        (Kalajdzievski, 2023).
        """
        alpha = next((alpha for pattern, alpha in self._alphas if pattern.matches_end(module)), self.alpha)
        rank = self.rank_of(module)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def targets_of(self, module: str, layer: int) -> tuple[str, ...]:
        """Return the entries of `targets` that match `module` in layer `layer`. Empty if the module is
        excluded.

        Follows PEFT's rules in `tuners_utils.check_target_module_exists`.
        """
        if _naming(self.excluded, module, self._excluded_pattern):
            return ()
        return self.matching(module, layer)

    def matching(self, module: str, layer: int) -> tuple[str, ...]:
        """Return the entries of `targets` that match `module` in layer `layer`, even if `module` is
        excluded.
        """
        if self.targets == _ALL:
            return (_ALL,)
        naming = _naming(self.targets, module, self._target_pattern)
        if self.layers is None or layer in self.layers or isinstance(self.targets, str):
            return naming
        return tuple(name for name in naming if name == module)

    @cached_property
    def _ranks(self) -> list[tuple[ModulePattern, int]]:
        return [(ModulePattern.read(key, self.path, "rank_pattern"), rank) for key, rank in self.ranks]

    @cached_property
    def _alphas(self) -> list[tuple[ModulePattern, float]]:
        return [(ModulePattern.read(key, self.path, "alpha_pattern"), alpha) for key, alpha in self.alphas]

    @cached_property
    def _target_pattern(self) -> ModulePattern | None:
        return self._pattern("target_modules", self.targets)

    @cached_property
    def _excluded_pattern(self) -> ModulePattern | None:
        return self._pattern("exclude_modules", self.excluded)

    def _pattern(self, field: str, names: Names) -> ModulePattern | None:
        return ModulePattern.read(names, self.path, field) if isinstance(names, str) else None


_ALL = "all-linear"
_NESTED = ("*", "*/*")


def misplaced(folder: Path) -> AdapterError | None:
    """Return an error that names the right folder if the adapter lies in a subfolder of `folder`, as in a
    trainer's output. None otherwise.
    """
    path = folder / CONFIG_FILE
    if path.exists() or not folder.is_dir():
        return None
    found = [
        file.parent.relative_to(folder).as_posix()
        for depth in _NESTED
        for file in islice(folder.glob(f"{depth}/{CONFIG_FILE}"), _MAX_ENTRIES)
    ]
    if not found:
        return None
    last = max(found, key=natural)
    remedy = f"Use the folder {last}."
    if len(found) > 1:
        remedy = f"Use one of the {len(found)} adapter folders in it, such as {last}."
    return AdapterError(path, f"the folder holds no adapter itself, but its subfolder {last} does", remedy)


def _naming(names: Names, module: str, pattern: ModulePattern | None) -> tuple[str, ...]:
    if pattern is not None:
        return (pattern.text,) if pattern.matches_whole(module) else ()
    return tuple(name for name in names if module == name or module.endswith(f".{name}"))


@dataclass(frozen=True)
class _Fields:
    """Reads the fields of adapter_config.json. Refuses a value of the wrong type or out of range, with an
    error that names the field.
    """

    path: Path
    fields: Mapping[str, Any]

    def refuse(self, field: str, value: object, reason: str) -> AdapterError:
        return AdapterError(
            self.path, reason, "Correct the field, or save the adapter again.", field=field, value=value
        )

    def rank(self, field: str, value: object) -> int:
        if type(value) is not int or not 1 <= value <= 1 << 16:
            raise self.refuse(field, value, "a LoRA rank must be a whole number of at least 1")
        return value

    def alpha(self, field: str, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= 1e6:
            raise self.refuse(
                field, value, "a LoRA's alpha must be a number between -1,000,000 and 1,000,000"
            )
        return value

    def flag(self, field: str) -> bool:
        value = self.fields.get(field)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(field, value, "this field of the adapter's config must be true or false")
        return bool(value)

    def pairs(self, field: str) -> list[tuple[str, object]]:
        value = self.fields.get(field) or {}
        if not isinstance(value, dict) or len(value) > _MAX_ENTRIES:
            raise self.refuse(
                field,
                value,
                f"the field must be a JSON object of at most {_MAX_ENTRIES} patterns of module names",
            )
        for key in value:
            ModulePattern.read(key, self.path, field)
        return list(value.items())

    def names(self, field: str) -> Names:
        value = self.fields.get(field) or ()
        if isinstance(value, str):
            ModulePattern.read(value, self.path, field)
            return value
        listed = isinstance(value, list | tuple) and len(value) <= _MAX_ENTRIES
        if not listed or not all(isinstance(name, str) and _NAME.fullmatch(name) for name in value):
            raise self.refuse(field, value, "the field must be a list of module names")
        return tuple(sorted(set(value)))

    def targets(self) -> Names:
        if self.fields.get("target_modules") == _ALL:
            return _ALL
        names = self.names("target_modules")
        if not names:
            raise self.refuse(
                "target_modules",
                names,
                f"the field must name at least one module, such as {' and '.join(LLAMA.usual)}",
            )
        return names

    def lists(self) -> tuple[str, ...]:
        value: object = self.fields.get("layers_pattern") or ()
        return (value,) if isinstance(value, str) else tuple(cast("list[str]", value))

    def layers(self) -> tuple[int, ...] | None:
        value = self.fields.get("layers_to_transform")
        listed = [value] if isinstance(value, int) else value
        if listed is None or listed == []:
            return None
        if not isinstance(listed, list) or len(listed) > _MAX_ENTRIES:
            raise self.refuse("layers_to_transform", value, "the field must be a list of layer numbers")
        if not all(type(layer) is int and 0 <= layer < _MAX_ENTRIES for layer in listed):
            raise self.refuse(
                "layers_to_transform", value, "each layer must be a whole number, counted from 0"
            )
        return tuple(sorted(set(listed)))

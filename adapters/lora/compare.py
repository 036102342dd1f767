"""Compare two adapters: their configs, and the size and direction of their updates to the base's weights.

The update of a module is scaling * B A, a matrix as large as the base's weight. It is never computed: its
inner products need only r x r matrices, since <B1 A1, B2 A2> = sum((B1' B2) * (A1 A2')), element by element
(the cyclic property of the trace).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.errors import AdapterError
from adapters.files.jsonfile import read_object
from adapters.lora.config import CONFIG_FILE, MAX_CONFIG_BYTES
from adapters.lora.manifest import Adapter
from adapters.lora.weights import AdapterWeights, LowRank

_UNTOLD = frozenset({"peft_version", "inference_mode", "base_model_name_or_path"})


@dataclass(frozen=True, slots=True)
class UpdateDistance:
    """Comparison of two adapters' updates, for one module or for all modules together."""

    name: str
    first: float
    """Frobenius norm of the first adapter's update. 0 if the adapter does not update the module."""
    second: float
    cosine: float | None
    """Cosine of the angle between the two updates, from -1 to 1. None if one of the updates is zero."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between two adapters."""

    config: Mapping[str, tuple[Any, Any]]
    """Maps each field of adapter_config.json that differs to its two values. A value is None if the field is
    absent.
    """
    modules: tuple[UpdateDistance, ...]
    whole: UpdateDistance


def compare_adapters(
    first: Adapter, second: Adapter, weights: tuple[AdapterWeights, AdapterWeights]
) -> Comparison:
    """Compare two adapters for the same base, using their `weights`. Needs memory for a few r x r matrices
    only.
    """
    family, ours, theirs = weights[0].family, weights[0].modules, weights[1].modules
    products: list[tuple[float, float, float]] = []
    keys = sorted({*ours, *theirs})
    for key in keys:
        a, b = ours.get(key), theirs.get(key)
        both = _inner(a, b) if a is not None and b is not None else 0.0
        squares = [_inner(one, one) if one is not None else 0.0 for one in (a, b)]
        products.append((squares[0], squares[1], both))
    sums = [math.fsum(column) for column in zip(*products, strict=True)]
    return Comparison(
        config=_differences(_config(first), _config(second)),
        modules=tuple(
            _apart(family.module_name(*key), *row) for key, row in zip(keys, products, strict=True)
        ),
        whole=_apart("all modules", *sums),
    )


def _inner(one: LowRank, other: LowRank) -> float:
    """Return the inner product of two updates of one module."""
    across = one.b.T.astype(np.float64) @ other.b
    within = one.a.astype(np.float64) @ other.a.T
    return float(np.sum(across * within)) * one.scaling * other.scaling


def _apart(name: str, first: float, second: float, both: float) -> UpdateDistance:
    norms = math.sqrt(max(first, 0.0)), math.sqrt(max(second, 0.0))
    product = norms[0] * norms[1]
    cosine = max(-1.0, min(1.0, both / product)) if product > 0 else None
    return UpdateDistance(name, norms[0], norms[1], cosine)


def _config(adapter: Adapter) -> dict[str, Any]:
    return read_object(adapter.path / CONFIG_FILE, MAX_CONFIG_BYTES, AdapterError)


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    fields = sorted({*first, *second} - _UNTOLD)
    pairs = {name: (_normalise(first.get(name)), _normalise(second.get(name))) for name in fields}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _normalise(value: object) -> object:
    """Normalise a config value for comparison: sort a list of names, and turn `{}`, which PEFT writes for an
    option that is off, into None.
    """
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return sorted(value)
    return None if value in (False, {}, []) and not isinstance(value, int | float) else value

"""Rotary position embedding (RoPE): frequencies and tables, unscaled or with linear or Llama 3 scaling.

Feature i is rotated with feature i + head_dim / 2, as in Hugging Face checkpoints. The method is RoFormer's,
https://arxiv.org/abs/2104.09864.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

_ORIGINAL_CONTEXT = "original_max_position_embeddings"


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Llama 3.1's RoPE scaling.

    Long wavelengths are multiplied by `factor`, short ones are kept, and those between are interpolated.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True, slots=True)
class Rope:
    """Parameters of the rotary position embedding (RoPE), which maps positions to angles of rotation."""

    theta: float
    linear_factor: float = 1.0
    """Factor by which positions are divided in linear RoPE scaling; 1 means no scaling."""
    llama3: Llama3Scaling | None = None

    def tables(self, head_dim: int, positions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute the tables of cosines and sines for all positions, each [positions, head_dim / 2]."""
        frequencies = self.frequencies(head_dim)
        angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies[None, :]
        return np.cos(angles), np.sin(angles)

    def frequencies(self, head_dim: int) -> NDArray[np.float32]:
        """Compute the rotation per position in radians for each pair of features, [head_dim / 2]."""
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        plain = (1.0 / np.power(np.float32(self.theta), exponents)).astype(np.float32)
        if self.llama3 is not None:
            return _stretch(plain, self.llama3)
        return (plain / self.linear_factor).astype(np.float32)


def _stretch(plain: NDArray[np.float32], scaling: Llama3Scaling) -> NDArray[np.float32]:
    wavelength = 2.0 * math.pi / plain.astype(np.float64)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    blend = (scaling.original_context / wavelength - low) / (high - low)
    between = (1.0 - blend) * plain / scaling.factor + blend * plain
    kept = np.where(wavelength < scaling.original_context / high, plain, between)
    stretched = np.where(wavelength > scaling.original_context / low, plain / scaling.factor, kept)
    return stretched.astype(np.float32)


def read_rope(raw: Mapping[str, object], head_dim: int, context: int) -> Rope:
    """Read the RoPE parameters from config.json: `rope_parameters` (transformers 5), or `rope_theta` and
    `rope_scaling` (earlier versions). `rope_scaling` replaces `rope_parameters` if both are present, as in
    transformers 5.23 (`RotaryEmbeddingConfigMixin`).

    Raises `ValueError` if the kind of scaling is not supported; the message names it.
    """
    for name in ("rope_scaling", "rope_parameters"):
        if not isinstance(raw.get(name) or {}, dict):
            raise ValueError(
                f"config.json: the field {name} {raw[name]!r} is not a JSON object; download the model again"
            )
    given = cast("dict[str, object]", raw.get("rope_scaling") or raw.get("rope_parameters") or {})
    fields = {"rope_theta": raw.get("rope_theta")} | given
    if nested := [name for name, value in fields.items() if isinstance(value, dict)]:
        raise ValueError(
            f"config.json: rope_parameters differ between layers ({nested[0]}), which the embedded engine "
            "does not support; use a base model with the same RoPE parameters in all layers"
        )
    theta = _positive(fields, "rope_theta", default=10000.0)
    if _positive({**raw, **fields}, "partial_rotary_factor", default=1.0) != 1.0:
        raise ValueError(
            "config.json: partial_rotary_factor is not 1, which the embedded engine does not support; use "
            "another base model"
        )
    kind = fields.get("rope_type", fields.get("type", "default"))
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, linear_factor=_positive(fields, "factor"))
    if kind == "llama3":
        # transformers prefers the field outside the RoPE parameters.
        original = raw.get(_ORIGINAL_CONTEXT, fields.get(_ORIGINAL_CONTEXT))
        return Rope(theta, llama3=_llama3(fields | {_ORIGINAL_CONTEXT: original}, context))
    raise ValueError(
        f"config.json: rope_type {kind!r} is not supported by the embedded engine; supported: default, "
        "linear, llama3"
    )


def _llama3(fields: Mapping[str, object], context: int) -> Llama3Scaling:
    scaling = Llama3Scaling(
        factor=_positive(fields, "factor"),
        low_frequency_factor=_positive(fields, "low_freq_factor"),
        high_frequency_factor=_positive(fields, "high_freq_factor"),
        original_context=int(_positive(fields, _ORIGINAL_CONTEXT, default=float(context))),
    )
    if scaling.high_frequency_factor <= scaling.low_frequency_factor:
        raise ValueError(
            "config.json: high_freq_factor is not greater than low_freq_factor; download the model again"
        )
    return scaling


def _positive(fields: Mapping[str, object], name: str, default: float | None = None) -> float:
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 < value < math.inf:
        raise ValueError(
            f"config.json: the RoPE parameter {name} {value!r} is not a positive number; download the model "
            "again"
        )
    return float(value)

"""Find the sizes of a base, by the name of a known model or from a checkpoint's config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.limits.roofline import Model

BASES: Mapping[str, Model] = {
    "mistral-7b": Model(32, 4096, 32, 8, 128, 14336, 32000),
    "llama-3.1-8b": Model(32, 4096, 32, 8, 128, 14336, 128256),
    "mistral-nemo-12b": Model(40, 5120, 32, 8, 128, 14336, 131072),
}
"""Maps the names of known bases to their sizes, as in the `config.json` of each release."""
SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
)
"""Names of the sizes in a config.json."""
OPTIONAL = ("num_key_value_heads", "head_dim")
"""Sizes that follow from others if they are missing or null."""
PACKED = {"none": None, "int8": 1.0, "int4": (4 + 16 / 128) / 8}
"""Maps each weight format to the bytes of a weight in it. None: not quantized.

int8 has one scale for each output channel; at less than 0.1% of the size, scales are not counted. int4 has a
16-bit scale for each 128 weights, as GPTQ (Frantar et al., 2022) and AWQ (Lin et al., 2023) store them. Only
the matrices of the layers are quantized. Products are still computed in 16 bits, so the arithmetic limit does
not change.
"""


def find_base(name: str) -> Model:
    """Return the sizes of the base `name`: a key of `BASES`, a folder with a config.json, or the path of a
    config.json. Raises `ValueError` if it does not exist or its config lacks a size.
    """
    if name in BASES:
        return BASES[name]
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ValueError(
            f"the base {name!r} is unknown; use one of {', '.join(BASES)}, or a folder with a config.json"
        ) from None
    remedy = "use the config.json of a Mistral- or Llama-like base"
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object; {remedy}")
    for size in SIZES:
        value = config.get(size, 1)
        if (value is not None or size not in OPTIONAL) and (type(value) is not int or value < 1):
            raise ValueError(f"{path} has {size} {value!r}, which is not an integer above 0; {remedy}")
    try:
        return Model.read(config)
    except KeyError as error:
        raise ValueError(f"{path} lacks {error.args[0]!r}; {remedy}") from None


def packed(model: Model, quantize: str, width: int = 2) -> Model:
    """Return `model` with its layers' matrices in the weight format `quantize`, and `width` bytes for every
    other number. Raises `ValueError` for an unknown format.
    """
    if quantize not in PACKED:
        raise ValueError(f"the weight format {quantize!r} is unknown; use one of {', '.join(PACKED)}")
    return replace(model, width=width, packed=PACKED[quantize])

"""The sizes of a base, by a known name or from a checkpoint's config.json."""

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
"""Maps each name of a base to its sizes, as in the `config.json` of its release."""
PACKED = {"none": None, "int8": 1.0, "int4": (4 + 16 / 128) / 8}
"""Maps each weight format to the bytes of a weight.

int8 has one scale for each output channel, which is left out: it is below 0.1%. int4 has a 16-bit scale for
each 128 weights, as GPTQ (Frantar et al., 2022) and AWQ (Lin et al., 2023) store them. Both are formats of
the layers' matrices, not of activations: products are computed in 16 bits, so the peak rate stays.
"""


def find_base(name: str) -> Model:
    """Return the sizes of the base `name`: one of `BASES`, a folder with a config.json, or such a file.
    Raises `ValueError` if it does not exist or its config lacks a size.
    """
    if name in BASES:
        return BASES[name]
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    try:
        config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Model.read(config)
    except (OSError, ValueError):
        raise ValueError(
            f"base {name!r} is unknown; use one of {', '.join(BASES)}, or a folder with a config.json"
        ) from None
    except KeyError as error:
        raise ValueError(
            f"{path}: {error.args[0]!r} is missing; give a Mistral- or Llama-like base"
        ) from None


def packed(model: Model, quantize: str, width: int = 2) -> Model:
    """Return `model` with its matrices in the format `quantize`, and `width` bytes for every other number."""
    if quantize not in PACKED:
        raise ValueError(f"quantize {quantize!r} is unknown; use one of {', '.join(PACKED)}")
    return replace(model, width=width, packed=PACKED[quantize])

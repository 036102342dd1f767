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
        config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Model.read(config)
    except (OSError, ValueError):
        raise ValueError(
            f"the base {name!r} is unknown; use one of {', '.join(BASES)}, or a folder with a config.json"
        ) from None
    except KeyError as error:
        raise ValueError(
            f"{path} lacks {error.args[0]!r}; use the config.json of a Mistral- or Llama-like base"
        ) from None


def packed(model: Model, quantize: str, width: int = 2) -> Model:
    """Return `model` with its layers' matrices in the weight format `quantize`, and `width` bytes for every
    other number. Raises `ValueError` for an unknown format.
    """
    if quantize not in PACKED:
        raise ValueError(f"the weight format {quantize!r} is unknown; use one of {', '.join(PACKED)}")
    return replace(model, width=width, packed=PACKED[quantize])

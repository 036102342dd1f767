"""Write an adapter's weights in PEFT's simplest form, for engines that read adapter files themselves, such as
vLLM.

In this form all modules have the same rank, scaling is folded into B, and numbers are float32. An engine that
does not support rank patterns or rsLoRA still computes the right result. The engine reads exactly the weights
that were checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from adapters.files.jsonfile import write_object
from adapters.lora.config import CONFIG_FILE
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.lora.weights import AdapterWeights


def write_plain(weights: AdapterWeights, folder: Path) -> None:
    """Write `weights` to the new folder `folder`. Matrices of lower rank are padded with zeros, which add
    nothing.

    Modules are listed by their full names, since an adapter may update only some layers.
    """
    rank = max(module.rank for module in weights.modules.values())
    tensors: dict[str, NDArray[np.float32]] = {}
    for path, module in weights.names.items():
        missing = rank - module.rank
        name = f"base_model.model.{path}"
        tensors[f"{name}.lora_A.weight"] = np.pad(module.a, ((0, missing), (0, 0)))
        scaled = module.b * np.float32(module.scaling)
        tensors[f"{name}.lora_B.weight"] = np.pad(scaled, ((0, 0), (0, missing)))
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": list(weights.names),
        "bias": "none",
    }
    folder.mkdir(parents=True)
    save_file(tensors, folder / WEIGHTS_FILE)
    write_object(folder / CONFIG_FILE, config)

"""Adapters as torch saves them, for tests to convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from adapters.pth.conversion import ConversionResult, convert_file

FULL = "base_model.model.model.layers.{layer}.self_attn.{module}.lora_{half}.weight"


SIZES = {"q_proj": 32, "v_proj": 16}
Tensors = dict[str, torch.Tensor]
Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"
PEFT = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def lora(
    name: str = FULL, rank: int = 4, *, turned: bool = False, dtype: torch.dtype = torch.float32
) -> Tensors:
    """q_proj and v_proj of two layers under names made by `name`."""
    made = torch.Generator().manual_seed(1)
    found: Tensors = {}
    for layer in range(2):
        for module, out in SIZES.items():
            for half, size in (("A", (rank, 32)), ("B", (out, rank))):
                tensor = torch.randn(size, generator=made).to(dtype)
                key = name.format(layer=layer, module=module, half=half)
                found[key] = tensor.T.contiguous() if turned else tensor
    return found


def saved(folder: Path, document: object, name: str = "oneseek-7b-zero-v1.1.pth", **said: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(document, folder / name)
    if said:
        (folder / name).with_suffix(".json").write_text(json.dumps(said), encoding="utf-8")
    return folder / name


def converted(tmp_path: Path, document: object, alpha: float | None = None, **said: Any) -> ConversionResult:
    return convert_file(saved(tmp_path / "weights", document, **said), tmp_path / "out", alpha=alpha)


def beside_peft(folder: Path, tensors: Tensors, **config: Any) -> Path:
    """adapter_model.bin as PEFT saves it, with its config."""
    file = saved(folder, tensors, "adapter_model.bin")
    (folder / "adapter_config.json").write_text(json.dumps({**PEFT, **config}), encoding="utf-8")
    return file

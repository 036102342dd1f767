"""Combine adapters of one base into one, with PEFT's `add_weighted_adapter`. Needs torch and PEFT.

Run as a process of its own, so that the server's command line needs neither torch nor PEFT:

    python -m adapters.merging.combine_child < plan.json

where plan.json holds the arguments of `combine`. The base's weights are not read: the base is built with
uninitialised layers, because PEFT only combines the adapters' LoRA factors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraModel
from transformers import AutoConfig, AutoModelForCausalLM

from adapters.files.atomic import replace_file

NAME = "combined"


def combine(
    base: str,
    adapters: Sequence[str],
    weights: Sequence[float],
    method: str,
    output: str,
    *,
    rank: int | None,
    density: float,
    seed: int,
) -> None:
    """Write the weighted combination of the LoRAs in the folders `adapters` to the folder `output`, in PEFT
    layout.

    Sources of the methods: linear, svd: PEFT's task arithmetic (Ilharco et al., 2023); ties: Yadav et al.,
    2023; dare: Yu et al., 2024. Raises `ValueError` if the method cannot combine these adapters, for example
    because their ranks differ.
    """
    torch.manual_seed(seed)
    model = _skeleton(base, adapters)
    names = [_name(number) for number in range(len(adapters))]
    tuner = model.base_model
    assert isinstance(tuner, LoraModel)
    tuner.add_weighted_adapter(
        adapters=names,
        weights=list(weights),
        adapter_name=NAME,
        combination_type=method,  # pyright: ignore[reportArgumentType] # checked by the caller
        svd_rank=rank,
        svd_full_matrices=False,
        density=density if method != "linear" and method != "svd" else None,
    )
    model.save_pretrained(output, selected_adapters=[NAME])
    _lift(Path(output))


def _skeleton(base: str, adapters: Sequence[str]) -> PeftModel:
    """Build the base with uninitialised weights, and load all adapters into it."""
    config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # The system does not use memory for pages that are never written to.
    empty = empty.to_empty(device="cpu")
    model = PeftModel.from_pretrained(empty, adapters[0], adapter_name=_name(0))
    for number, adapter in enumerate(adapters[1:], 1):
        model.load_adapter(adapter, adapter_name=_name(number))
    return model


def _name(number: int) -> str:
    """Return PEFT's name for adapter `number`. It is not a bare number, because PEFT looks for the name
    between the dots of a tensor's name.
    """
    return f"source{number}"


def _lift(folder: Path) -> None:
    """Move the adapter's files from PEFT's subfolder `combined` up into `folder`, and delete
    the subfolder.
    """
    for file in sorted((folder / NAME).iterdir()):
        replace_file(file, folder / file.name)
    (folder / NAME).rmdir()


def main() -> None:
    """Read the arguments of `combine` as JSON from standard input, and call it."""
    combine(**json.load(sys.stdin))


if __name__ == "__main__":
    main()

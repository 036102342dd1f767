"""Merging into a GPT-2, whose weights are stored as [in, out], under the whole model's names or without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters.errors import BaseModelError
from adapters.lora.manifest import read_manifest
from adapters.merging.merge import Merge
from adapters.training.loop.progress import Reporter
from tests.server.engines.embedded.models import write_adapter, write_model


def unchecked(folder: Path) -> Mapping[str, Any]:
    return {"skipped": "a test"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("gpt2") / "base", "gpt2")
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def lora(base: Path) -> Path:
    return write_adapter(base.with_name("voice-v1-sv"), base, 4, ("c_attn", "c_proj", "c_fc"), 1)


@pytest.mark.parametrize("bare", [False, True], ids=["whole", "bare"])
def test_weights_are_those_that_peft_merges(bare: bool, base: Path, lora: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    merged: Any = PeftModel.from_pretrained(model, str(lora)).merge_and_unload()  # pyright: ignore[reportCallIssue] a LoRA's tuner has it
    expected = {name: value.numpy() for name, value in merged.state_dict().items()}
    beginning = "transformer." if bare else ""
    if bare:
        tensors = load_file(base / "model.safetensors")
        folder = tmp_path / "bare"
        folder.mkdir()
        for name in ("config.json", "tokenizer.json"):
            (folder / name).write_bytes((base / name).read_bytes())
        save_file(
            {name.removeprefix(beginning): value for name, value in tensors.items()},
            folder / "model.safetensors",
        )
        base = folder
    job = Merge(base=base, base_name="tiny", adapter=read_manifest(lora), output=tmp_path / "out")
    assert job.run(Reporter(None), unchecked).checks["tensors"]["merged"] == 8
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[f"{beginning}{name}"], atol=1e-6)


def test_a_base_without_the_layers_is_refused(base: Path, lora: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((base / name).read_bytes())
    tensors = load_file(base / "model.safetensors")
    save_file(
        {name: value for name, value in tensors.items() if ".h.1." not in name}, folder / "model.safetensors"
    )
    job = Merge(base=folder, base_name="tiny", adapter=read_manifest(lora), output=tmp_path / "out")
    with pytest.raises(BaseModelError, match=r"transformer\.h\.1\."):
        job.run(Reporter(None), unchecked)

"""An architecture unlike the ones that ship takes one module and one table, and every part then runs it."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from adapters.lora import families as lora_families
from adapters.lora.manifest import read_manifest
from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.config import UnsupportedModelError
from server.engines.embedded.model.families import lookup
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.variants import FUSED, PORTABLE
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.device.providers import PROVIDERS
from server.engines.embedded.runners.device.runner import DeviceRunner
from server.engines.embedded.runners.protocol import DecodeRow, Runner
from tests.server.engines.embedded.model.families.gpt2 import GPT2
from tests.server.engines.embedded.models import VOCABULARY, Reference

TOLERANCE = 1e-4
CONTEXT = 64
TARGETS = {"fused": ["c_attn"], "every": ["c_attn", "c_proj", "c_fc"]}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPT-2's line in both lists."""
    monkeypatch.setitem(lookup.FAMILIES, "gpt2", GPT2)
    monkeypatch.setattr(lora_families, "FAMILIES", {**lora_families.FAMILIES, "gpt2": GPT2.lora})
    monkeypatch.setattr("adapters.lora.shape_check.FAMILIES", lora_families.FAMILIES)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = GPT2Config(
        bos_token_id=0,
        eos_token_id=1,
        n_embd=64,
        n_head=4,
        n_layer=2,
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        initializer_range=0.15,
    )
    model: Any = GPT2LMHeadModel(config)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):  # zero in a new model
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loras(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for seed, (name, targets) in enumerate(TARGETS.items()):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM")
        model: Any = get_peft_model(GPT2LMHeadModel.from_pretrained(base), config)
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.1)
        found[name] = tmp_path_factory.mktemp("loras") / name
        model.save_pretrained(str(found[name]))
    return found


def opened(base: Path, scratch: Path, kind: str, quantize: Quantize = "none") -> Runner:
    """The runner of a kind: the CPU's, or a device's code over the CPU's provider."""
    if kind == "cpu":
        return CpuRunner(prepare(base, scratch, "gpt2", quantize, FUSED), 8, CONTEXT, 1)
    return DeviceRunner(prepare(base, scratch, "gpt2", quantize, PORTABLE), PROVIDERS["cpu"], 8, CONTEXT, 24)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("kind", ["cpu", "device"])
def test_both_runners_agree_with_transformers_and_peft(
    kind: str, base: Path, loras: dict[str, Path], tmp_path: Path
) -> None:
    reference, shape = Reference(base, loras), ModelShape.read(base)
    weights: dict[str, AdapterWeights] = {name: read_adapter(path, shape) for name, path in loras.items()}
    assert read_manifest(loras["fused"], alias="a", version="v1").targets == ("c_attn",)
    runner = opened(base, tmp_path, kind)
    for name, low in weights.items():
        runner.load(name, low)
    voices = [(), (("fused", 1.0),), (("every", 1.0),), (("every", 0.5), ("fused", 0.25))]
    rows, tokens = [1, 2, 5, 7], np.random.default_rng(3).integers(0, VOCABULARY, (4, 30)).tolist()
    for row, voice, prompt in zip(rows, voices, tokens, strict=True):
        expected = reference.logits(prompt, voice)
        runner.prefill(row, 0, prompt[:13], voice, [])
        found = runner.prefill(row, 13, prompt[13:20], voice, range(7))
        np.testing.assert_allclose(found, expected[13:20], atol=TOLERANCE)
    for at in range(20, 30):
        batch = [
            DecodeRow(row, prompt[at], at, voice)
            for row, voice, prompt in zip(rows, voices, tokens, strict=True)
        ]
        found = runner.decode(batch).copy()
        for logits, voice, prompt in zip(found, voices, tokens, strict=True):
            expected = reference.logits(prompt[: at + 1], voice)[-1]
            np.testing.assert_allclose(logits, expected, atol=TOLERANCE)
    runner.close()


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("kind", ["cpu", "device"])
def test_weights_stored_the_other_way_round_are_quantised_alike(
    kind: str, base: Path, tmp_path: Path
) -> None:
    prompt = np.random.default_rng(5).integers(0, VOCABULARY, 30).tolist()
    runner = opened(base, tmp_path, kind, "int8")
    expected = Reference(base).logits(prompt)
    found = runner.prefill(0, 0, prompt, (), range(30))
    off = float(np.abs(found - expected).max() / expected.std())
    assert off < 0.15
    runner.close()


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("name", "computed"), [("attn.bias", True), ("attn.masked_bias", True), ("bias", False)]
)
def test_buffers_that_the_family_computes_are_passed_over(
    name: str, computed: bool, base: Path, tmp_path: Path
) -> None:
    """Older releases of transformers saved GPT-2's causal mask beside its weights."""
    folder = shutil.copytree(base, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    tensors[f"transformer.h.0.{name}"] = np.ones((1, 1, 4, 4), np.float32)
    save_file(tensors, folder / "model.safetensors")
    with (
        nullcontext() if computed else pytest.raises(UnsupportedModelError, match=r"transformer\.h\.0\.bias")
    ):
        prepare(folder, tmp_path / "graphs", "gpt2")


def test_without_its_line_the_architecture_is_refused_with_those_that_are_known(base: Path) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        lookup.read_model_config(base)
    assert "'gpt2'" in str(caught.value)
    assert all(kind in str(caught.value) for kind in lookup.FAMILIES)


@pytest.mark.parametrize("kind", sorted(lookup.FAMILIES))
def test_every_family_is_one_that_adapters_know(kind: str) -> None:
    family = lookup.FAMILIES[kind]
    assert lora_families.FAMILIES[kind] is family.lora
    assert kind in family.architectures
    computed = [module for modules in family.groups.values() for module in modules]
    assert sorted(computed) == sorted(family.lora.names)

"""Every architecture that ships, by both graph variants and both runners, against transformers and PEFT."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters.lora import families as lora_families
from adapters.lora.manifest import read_manifest
from adapters.lora.weights import ModelShape, read_adapter
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.checkpoint import CheckpointError
from server.engines.embedded.model.config import UnsupportedModelError
from server.engines.embedded.model.families import lookup
from server.engines.embedded.model.variants import FUSED, PORTABLE
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.device.providers import PROVIDERS
from server.engines.embedded.runners.device.runner import DeviceRunner
from server.engines.embedded.runners.protocol import DecodeRow, Runner
from tests.server.engines.embedded.models import EVERY, VOCABULARY, Reference, write_adapter, write_model

TOLERANCE = 1e-4
CONTEXT = 64
GPT2_EVERY = ("c_attn", "c_proj", "c_fc")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@dataclass(frozen=True, slots=True)
class Case:
    """A family, and what its config.json says beside the shape."""

    family: str
    fields: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def targets(self) -> dict[str, tuple[str, ...]]:
        if self.family == "gpt2":
            return {"few": ("c_attn",), "every": GPT2_EVERY}
        return {"few": ("q_proj", "v_proj"), "every": EVERY}


CASES = {
    "mistral": Case("mistral", {"sliding_window": 17}),
    "llama": Case("llama"),
    "llama3": Case("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama_biased": Case("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": Case("qwen2"),
    "qwen2_tied_windows": Case(
        "qwen2",
        {
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 11,
            "max_window_layers": 0,
        },
    ),
    "qwen3": Case("qwen3"),
    "qwen3_biased": Case("qwen3", {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 32}),
    "gpt2": Case("gpt2"),
    "gpt2_exact": Case("gpt2", {"activation_function": "gelu", "scale_attn_by_inverse_layer_idx": True}),
    "gpt2_untied": Case(
        "gpt2",
        {
            "tie_word_embeddings": False,
            "activation_function": "quick_gelu",
            "scale_attn_weights": False,
            "n_inner": None,
            "layer_norm_epsilon": 1e-3,
            "reorder_and_upcast_attn": True,
        },
    ),
    "gpt2_small_heads": Case("gpt2", {"n_head": 8, "activation_function": "relu"}),
}
MIXED = ("mistral", "llama3", "qwen2", "qwen3", "gpt2")
"""Cases that are tried with adapters, one of each family."""


@dataclass(frozen=True, slots=True)
class Base:
    """A checkpoint with adapters, and what transformers computes with them."""

    folder: Path
    loras: dict[str, Path]
    reference: Reference


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    """Made when first asked for."""
    made: dict[str, Base] = {}
    root = tmp_path_factory.mktemp("families")

    class Bases(dict[str, Base]):
        def __missing__(self, name: str) -> Base:
            case = CASES[name]
            folder = write_model(root / name, case.family, **case.fields)
            loras = {
                lora: write_adapter(root / f"{name}-{lora}", folder, 4, targets, seed)
                for seed, (lora, targets) in enumerate(case.targets.items())
                if name in MIXED
            }
            made[name] = self[name] = Base(folder, loras, Reference(folder, loras))
            return made[name]

    return Bases()


def opened(folder: Path, scratch: Path, kind: str, quantize: str = "none") -> Runner:
    """The runner of a kind: the CPU's, or a device's code over the CPU's provider."""
    if kind == "cpu":
        return CpuRunner(prepare(folder, scratch, "base", quantize, FUSED), 8, CONTEXT, 1)
    graph = prepare(folder, scratch, "base", quantize, PORTABLE)
    return DeviceRunner(graph, PROVIDERS["cpu"], 8, CONTEXT, 24)


@pytest.mark.parametrize("kind", ["cpu", "device"])
@pytest.mark.parametrize("name", CASES)
def test_both_runners_agree_with_transformers(
    kind: str, name: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    base = bases[name]
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, 40).tolist()
    expected = base.reference.logits(tokens)
    assert expected.std() > 0.1
    runner = opened(base.folder, tmp_path, kind)
    runner.prefill(3, 0, tokens[:13], (), [])
    found = runner.prefill(3, 13, tokens[13:36], (), range(23))
    np.testing.assert_allclose(found, expected[13:36], atol=TOLERANCE, rtol=0)
    for at in range(36, 40):
        found = runner.decode([DecodeRow(3, tokens[at], at, ())])
        np.testing.assert_allclose(found[0], expected[at], atol=TOLERANCE, rtol=0)
    runner.close()


@pytest.mark.parametrize("kind", ["cpu", "device"])
@pytest.mark.parametrize("name", MIXED)
def test_a_mixed_batch_agrees_with_transformers_and_peft(
    kind: str, name: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    base, shape = bases[name], ModelShape.read(bases[name].folder)
    runner = opened(base.folder, tmp_path, kind)
    for lora, path in base.loras.items():
        runner.load(lora, read_adapter(path, shape))
    voices = [(), (("few", 1.0),), (("every", 1.0),), (("every", 0.5), ("few", 0.25))]
    rows, tokens = [1, 2, 5, 7], np.random.default_rng(3).integers(0, VOCABULARY, (4, 26)).tolist()
    expected = [base.reference.logits(prompt, voice) for prompt, voice in zip(tokens, voices, strict=True)]
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    for row, voice, prompt, logits in zip(rows, voices, tokens, expected, strict=True):
        runner.prefill(row, 0, prompt[:13], voice, [])
        found = runner.prefill(row, 13, prompt[13:20], voice, range(7))
        np.testing.assert_allclose(found, logits[13:20], atol=TOLERANCE, rtol=0)
    for at in range(20, 26):
        batch = [
            DecodeRow(row, prompt[at], at, voice)
            for row, voice, prompt in zip(rows, voices, tokens, strict=True)
        ]
        wanted = [logits[at] for logits in expected]
        np.testing.assert_allclose(runner.decode(batch), wanted, atol=TOLERANCE, rtol=0)
    runner.close()


@pytest.mark.parametrize("kind", ["cpu", "device"])
@pytest.mark.parametrize(("quantize", "largest"), [("int8", 0.1), ("int4", 0.5)])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gpt2"])
def test_quantised_weights_stay_as_near_as_llamas(
    family: str, quantize: str, largest: float, kind: str, tmp_path: Path
) -> None:
    # As spread out as an untrained model; a step of four bits is large.
    folder = write_model(tmp_path / "base", family, initializer_range=0.06)
    tokens = np.random.default_rng(5).integers(0, VOCABULARY, 30).tolist()
    expected = Reference(folder).logits(tokens)
    runner = opened(folder, tmp_path, kind, quantize)
    np.testing.assert_allclose(runner.prefill(0, 0, tokens, (), range(30)), expected, atol=largest, rtol=0)
    runner.close()


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gpt2", "gpt2_exact"])
def test_half_precision_stays_as_near_as_llamas(name: str, bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases[name]
    tokens = np.random.default_rng(6).integers(0, VOCABULARY, 30).tolist()
    graph = prepare(base.folder, tmp_path, "base", "none", PORTABLE, "fp16")
    runner = DeviceRunner(graph, PROVIDERS["cpu"], 8, CONTEXT, 24)
    found = runner.prefill(0, 0, tokens, (), range(30))
    np.testing.assert_allclose(found, base.reference.logits(tokens), atol=0.05, rtol=0)
    runner.close()


@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_a_checkpoint_of_the_model_without_its_head_is_read_alike(
    name: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    """OpenAI's GPT-2 has such names, and the causal mask beside them."""
    base = bases[name]
    prefix = "transformer." if name == "gpt2" else "model."
    folder = shutil.copytree(base.folder, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    bare = {tensor.removeprefix(prefix): value for tensor, value in tensors.items()}
    if name == "gpt2":
        bare |= {f"h.0.attn.{part}": np.ones((1, 1, 4, 4), np.float32) for part in ("bias", "masked_bias")}
    save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    tokens = np.random.default_rng(4).integers(0, VOCABULARY, 20).tolist()
    runner = opened(folder, tmp_path, "cpu")
    found = runner.prefill(0, 0, tokens, (), range(20))
    np.testing.assert_allclose(found, base.reference.logits(tokens), atol=TOLERANCE, rtol=0)
    runner.close()


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("gpt2", "transformer.h.0.bias"),
        ("gpt2", "transformer.h.0.attn.c_attn.lora_A"),
        ("gpt2", "lm_head.bias"),
        ("qwen2", "model.layers.0.self_attn.o_proj.bias"),
        ("qwen2", "model.layers.0.self_attn.q_norm.weight"),
        ("qwen3", "model.layers.0.self_attn.q_proj.bias"),
    ],
)
def test_what_nothing_reads_is_refused_by_name(
    family: str, name: str, bases: dict[str, Base], tmp_path: Path
) -> None:
    folder = shutil.copytree(bases[family].folder, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: np.ones(64, np.float32)}, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=re.escape(name)):
        prepare(folder, tmp_path / "graphs", "base")


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gpt2"])
def test_what_is_missing_is_refused_by_name(family: str, bases: dict[str, Base], tmp_path: Path) -> None:
    folder = shutil.copytree(bases[family].folder, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    for part in (".bias", "norm.weight", "wpe.weight"):
        gone = next((name for name in tensors if name.endswith(part)), None)
        if gone is None:
            continue
        left = {name: value for name, value in tensors.items() if name != gone}
        save_file(left, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=re.escape(gone)):
            prepare(folder, tmp_path / "graphs", "base")


def test_names_of_a_lora_are_those_of_its_family(bases: dict[str, Base]) -> None:
    found = {name: read_manifest(path, alias="a", version="v1") for name, path in bases["gpt2"].loras.items()}
    assert found["few"].targets == ("c_attn",)
    assert found["every"].targets == ("attn.c_proj", "c_attn", "c_fc", "mlp.c_proj")


@pytest.mark.parametrize("kind", sorted(lookup.FAMILIES))
def test_every_family_is_one_that_adapters_know(kind: str) -> None:
    family = lookup.FAMILIES[kind]
    assert lora_families.FAMILIES[kind] is family.lora
    assert kind in family.architectures
    computed = [module for modules in family.groups.values() for module in modules]
    assert sorted(computed) == sorted(family.lora.names)

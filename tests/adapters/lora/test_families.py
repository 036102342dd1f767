"""Each architecture's table is what transformers and PEFT have; a new one takes a table alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.pytorch_utils import Conv1D

from adapters.errors import AdapterError, BaseModelError
from adapters.lora.families import (
    FAMILIES,
    GPT2,
    LLAMA,
    PHI3,
    LoraFamily,
    Sizes,
    Target,
    family_of_tensors,
)
from adapters.lora.flatten import write_plain
from adapters.lora.manifest import read_manifest
from adapters.lora.shape_check import ModelShape, check_fit
from adapters.lora.weights import read_adapter
from adapters.merging.shards import stored_updates

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def linear_modules(model: Any) -> dict[str, tuple[int, int]]:
    """Name → (in, out) of every linear module in a layer, whichever way its weight is stored."""
    found: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".0." in name:
            found[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            found[name] = (module.nx, module.nf)
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_targets_are_the_modules_that_transformers_has(kind: str, tmp_path: Path) -> None:
    config: Any = AutoConfig.for_model(kind, **SMALL)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    config.save_pretrained(tmp_path)
    shape, modules = ModelShape.read(tmp_path), linear_modules(model)
    expected = {shape.family.module_name(0, name): shape.features(name) for name in shape.family.names}
    assert expected == {name: modules.get(name) for name in expected}
    if shape.family is LLAMA:  # and no other linear module
        assert expected.keys() == {name for name in modules if ".layers.0." in name}
    assert set(shape.family.usual) <= set(shape.family.names)


def test_an_unknown_architecture_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    for fields in ({"model_type": "mamba", "hidden_size": 64}, {"model_type": ["llama"]}, {}):
        (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
        with pytest.raises(BaseModelError) as caught:
            ModelShape.read(tmp_path)
        assert caught.value.field == "model_type"
        assert all(kind in str(caught.value) for kind in FAMILIES)


def test_two_targets_of_one_name_are_refused() -> None:
    paths = ("attn.c_proj", "mlp.c_proj")
    with pytest.raises(ValueError, match="c_proj"):
        dataclasses.replace(LLAMA, targets=tuple(Target(path, "hidden", ("hidden",)) for path in paths))


def saved(folder: Path, model: Any, family: LoraFamily, *targets: str) -> Path:
    """A random LoRA of rank 4 on `model`, as PEFT saves it."""
    torch.manual_seed(1)
    turned = family.stores_transposed(targets)
    config = LoraConfig(r=4, target_modules=list(targets), task_type="CAUSAL_LM", fan_in_fan_out=turned)
    wrapped: Any = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(str(folder))
    return folder


def test_packed_projections_are_one_target(tmp_path: Path) -> None:
    config: Any = AutoConfig.for_model("phi3", **SMALL)
    config.save_pretrained(tmp_path)
    folder = saved(
        tmp_path / "lora",
        AutoModelForCausalLM.from_config(config),
        PHI3,
        "qkv_proj",
        "o_proj",
        "gate_up_proj",
    )
    shape = ModelShape.read(tmp_path)
    assert PHI3.target("qkv_proj").packed
    assert not PHI3.target("o_proj").packed
    assert read_manifest(folder, alias="a", version="v1").targets == ("gate_up_proj", "o_proj", "qkv_proj")
    weights = read_adapter(folder, shape)
    assert weights.modules[1, "qkv_proj"].b.shape == (128, 4)
    write_plain(weights, tmp_path / "plain")
    assert read_adapter(tmp_path / "plain", shape).modules.keys() == weights.modules.keys()


SHAPE = ModelShape(GPT2, Sizes(hidden=64, intermediate=256, heads=4, kv_heads=4, head_dim=16, layers=2))


def gpt2() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            bos_token_id=0, eos_token_id=1, n_embd=64, n_head=4, n_layer=2, vocab_size=96, n_positions=64
        )
    ).eval()


@pytest.fixture
def c_attn(tmp_path: Path) -> Path:
    return saved(tmp_path / "lora", gpt2(), GPT2, "c_attn")


def change(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, **fields}), encoding="utf-8")


def test_a_new_familys_table_is_what_transformers_has() -> None:
    modules = linear_modules(gpt2())
    found = {GPT2.module_name(0, name): SHAPE.features(name) for name in GPT2.names}
    assert found == {name: size for name, size in modules.items() if ".h.0." in name}


def test_a_fused_transposed_target_is_accepted_by_its_family(c_attn: Path) -> None:
    check_fit(c_attn, SHAPE)
    weights = read_adapter(c_attn, SHAPE)
    assert weights.modules.keys() == {(0, "c_attn"), (1, "c_attn")}
    assert weights.modules[0, "c_attn"].a.shape == (4, 64)
    assert weights.modules[0, "c_attn"].b.shape == (192, 4)
    assert GPT2.target("c_attn").packed


def test_a_name_that_ends_several_modules_targets_each(tmp_path: Path) -> None:
    folder = saved(tmp_path / "lora", gpt2(), GPT2, "c_proj")
    found = read_adapter(folder, SHAPE).modules
    assert {name for _, name in found} == {"attn.c_proj", "mlp.c_proj"}
    assert found[0, "mlp.c_proj"].a.shape == (4, 256)


def test_what_another_family_has_is_refused(c_attn: Path) -> None:
    llama = ModelShape(LLAMA, SHAPE.sizes)
    with pytest.raises(AdapterError, match="c_attn"):
        check_fit(c_attn, llama)
    change(c_attn, target_modules=["c_attn", "wte"])
    with pytest.raises(AdapterError) as caught:
        check_fit(c_attn, SHAPE)
    assert caught.value.field == "target_modules"
    assert "'wte'" in str(caught.value)


def test_factors_stored_the_wrong_way_round_are_refused(c_attn: Path) -> None:
    file = c_attn / "adapter_model.safetensors"
    name = "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"
    tensors = load_file(file)
    save_file({**tensors, name: np.ascontiguousarray(tensors[name].T)}, file)
    with pytest.raises(AdapterError, match=r"lora_B\.weight .*\[4, 192\].*\[192, 4\]"):
        check_fit(c_attn, SHAPE)


def test_fan_in_fan_out_is_for_transposed_weights_alone(c_attn: Path, tmp_path: Path) -> None:
    assert json.loads((c_attn / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    check_fit(c_attn, SHAPE)
    plain = dataclasses.replace(
        GPT2, targets=tuple(dataclasses.replace(target, transposed=False) for target in GPT2.targets)
    )
    with pytest.raises(AdapterError) as caught:
        check_fit(c_attn, ModelShape(plain, SHAPE.sizes))
    assert caught.value.field == "fan_in_fan_out"


def test_an_update_is_turned_as_the_base_stores_its_weight(c_attn: Path) -> None:
    model = gpt2()
    before: Mapping[str, torch.Tensor] = {name: value.clone() for name, value in model.state_dict().items()}
    merged: Any = PeftModel.from_pretrained(model, str(c_attn)).merge_and_unload()  # pyright: ignore[reportCallIssue] a LoRA's tuner has it
    after = merged.state_dict()
    updates = stored_updates(read_adapter(c_attn, SHAPE))
    assert updates.keys() == {name for name in before if "c_attn.weight" in name}
    for name, update in updates.items():
        sums = before[name].numpy() + update.scaling * (update.b @ update.a)
        np.testing.assert_allclose(sums, after[name].numpy(), atol=1e-6)


def test_a_file_without_its_base_is_read_by_the_family_that_knows_its_tensors() -> None:
    names = [
        f"base_model.model.{LLAMA.module_name(0, name)}.lora_A.weight" for name in ("o_proj", "down_proj")
    ]
    packed = f"base_model.model.{PHI3.module_name(0, 'qkv_proj')}.lora_A.weight"
    assert family_of_tensors(names) is LLAMA
    assert family_of_tensors([*names, packed]) is PHI3
    assert family_of_tensors([]) is LLAMA

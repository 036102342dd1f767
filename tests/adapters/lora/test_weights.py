"""What is read equals what PEFT computes, for every kind of plain LoRA it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key, match_target_against_key
from safetensors.numpy import load_file, save_file
from transformers import MistralConfig, MistralForCausalLM

from adapters.errors import AdapterError, BaseModelError
from adapters.lora import config
from adapters.lora.digest import adapter_digest
from adapters.lora.families import LLAMA, Sizes
from adapters.lora.patterns import ModulePattern
from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter

QV: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}
KINDS: dict[str, dict[str, Any]] = {
    "two targets": QV,
    "all linear": {"target_modules": "all-linear"},
    "rslora": {**QV, "use_rslora": True},
    "ranks": {**QV, "rank_pattern": {"layers.1.self_attn.q_proj": 2, "v_proj": 3}},
    "alphas": {**QV, "alpha_pattern": {r"^model\.layers\.\d+\.self_attn\.q_proj": 3}, "use_rslora": True},
    "one layer": {"target_modules": ["down_proj", "self_attn.k_proj"], "layers_to_transform": 1},
    "some layers": {**QV, "layers_to_transform": [0], "layers_pattern": "layers"},
    "pattern": {"target_modules": r".*\.(?:gate|up)_proj"},
    "full names": {"target_modules": ["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.o_proj"]},
    "excluded": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]},
    "overlapping": {"target_modules": ["q_proj", "self_attn.q_proj"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    model = MistralForCausalLM(
        MistralConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=64,
        )
    )
    model.save_pretrained(folder)
    return folder


def trained(base: Path, **options: Any) -> PeftModel:
    """A LoRA whose both halves are random, as after training."""
    model = MistralForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, **options)
    return cast(PeftModel, get_peft_model(model, config))


def updates(model: PeftModel) -> dict[tuple[int, str], np.ndarray[Any, Any]]:
    """(layer, module) → PEFT's own product of the two halves."""
    found: dict[tuple[int, str], np.ndarray[Any, Any]] = {}
    for name, module in cast(torch.nn.Module, model.base_model.model).named_modules():
        if hasattr(module, "lora_A"):
            parts = name.split(".")
            delta = cast(Any, module).get_delta_weight("default")
            found[int(parts[2]), parts[-1]] = delta.float().detach().numpy()
    return found


def products(weights: AdapterWeights) -> dict[tuple[int, str], np.ndarray[Any, Any]]:
    return {key: low.scaling * low.b @ low.a for key, low in weights.modules.items()}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_reads_what_peft_computes(kind: str, base: Path, tmp_path: Path) -> None:
    model = trained(base, **KINDS[kind])
    model.save_pretrained(str(tmp_path))
    expected, found = updates(model), products(read_adapter(tmp_path, ModelShape.read(base)))
    assert found.keys() == expected.keys()
    for key, update in expected.items():
        np.testing.assert_allclose(found[key], update, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(dtype: torch.dtype, base: Path, tmp_path: Path) -> None:
    model = trained(base, **QV).to(dtype)
    model.save_pretrained(str(tmp_path))
    low = read_adapter(tmp_path, ModelShape.read(base)).modules[1, "v_proj"]
    half = model.get_parameter("base_model.model.model.layers.1.self_attn.v_proj.lora_B.default.weight")
    assert low.b.dtype == np.float32
    assert low.b.flags.c_contiguous
    np.testing.assert_array_equal(low.b, half.float().detach().numpy())


def test_an_adapters_name_within_a_tensors_name_is_read(
    make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    plain = make_adapter("plain")
    named = make_adapter("named")
    file = named / "adapter_model.safetensors"
    save_file({name.replace(".weight", ".default.weight"): v for name, v in load_file(file).items()}, file)
    expected, found = (products(read_adapter(folder, shape)) for folder in (plain, named))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_bfloat16_needs_no_torch(make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    folder = make_adapter()
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    low = read_adapter(folder, shape).modules[0, "q_proj"]
    expected = tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    np.testing.assert_array_equal(low.a, expected.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_files_that_changed_since_they_were_found_are_refused(
    make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    folder, other = make_adapter("a"), make_adapter("b", config={"lora_alpha": 16})
    digest = adapter_digest(folder)
    assert read_adapter(folder, shape, digest=digest).modules
    (folder / "adapter_config.json").write_bytes((other / "adapter_config.json").read_bytes())
    with pytest.raises(AdapterError, match=rf"{digest}.*{adapter_digest(folder)}"):
        read_adapter(folder, shape, digest=digest)


def test_the_arrays_hold_no_file(make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    folder = make_adapter()
    weights = read_adapter(folder, shape)
    before = weights.modules[0, "q_proj"].a.copy()
    (folder / "adapter_model.safetensors").write_bytes(b"")
    np.testing.assert_array_equal(weights.modules[0, "q_proj"].a, before)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"all linear"}))
def test_targets_follow_peft(kind: str, make_adapter: Callable[..., Path]) -> None:
    options = {name: value for name, value in KINDS[kind].items() if name != "layers_pattern"}
    ours = config.LoraConfig.read(make_adapter(config=options))
    theirs = LoraConfig(**options)
    for layer in range(3):
        for module in LLAMA.names:
            name = LLAMA.module_name(layer, module)
            matched = check_target_module_exists(theirs, name)
            excluded = type(matched).__name__ == "_ExcludedModule"
            assert bool(ours.targets_of(name, layer)) == (bool(matched) and not excluded), name


PIECES = st.sampled_from(
    [
        "q_proj",
        "v_proj",
        "self_attn",
        "layers",
        "mlp",
        ".",
        r"\.",
        ".*",
        r"\d+",
        "[0-9]",
        r"[\d]+",
        "1",
        "(q|v)",
        "_proj",
        "^",
        "$",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, min_size=1, max_size=6).map("".join))
def test_patterns_match_as_in_peft(text: str) -> None:
    try:
        pattern = ModulePattern.read(text, Path("config"), "rank_pattern")
    except AdapterError:
        assume(False)
        return
    for module in LLAMA.names:
        for layer in (0, 1, 11):
            name = LLAMA.module_name(layer, module)
            assert pattern.matches_end(name) == (get_pattern_key([text], name) == text)
            assert pattern.matches_whole(name) == bool(match_target_against_key(text, name))


def test_the_pattern_of_axolotls_examples_is_read() -> None:
    text = r"model.layers.[\d]+.(mlp|cross_attn|self_attn).(up|down|gate|q|k|v|o)_proj"
    pattern = ModulePattern.read(text, Path("config"), "target_modules")
    assert all(pattern.matches_whole(LLAMA.module_name(11, module)) for module in LLAMA.names)


def test_a_pattern_matches_whole_lines_only() -> None:
    pattern = ModulePattern.read("q_proj", Path("config"), "rank_pattern")
    assert pattern.matches_end("layers.0.q_proj")
    assert not pattern.matches_end("layers.0.q_proj\n")


def test_the_shape_is_read_with_its_defaults(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "head_dim": None,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = ModelShape.read(tmp_path)
    assert read == ModelShape(
        LLAMA, Sizes(hidden=64, intermediate=96, heads=4, kv_heads=4, head_dim=16, layers=3)
    )
    assert read.features("down_proj") == (96, 64)
    assert read.features("o_proj") == (64, 64)


@pytest.mark.parametrize("value", [None, 0, -1, "64", True, 1.5])
def test_a_shape_that_is_no_size_is_refused(value: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": value}))
    with pytest.raises(BaseModelError, match="hidden_size"):
        ModelShape.read(tmp_path)

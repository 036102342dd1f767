"""Every adapter that would not be served as it was trained is refused, with the field and what helps."""

import json
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from adapters.errors import AdapterError
from adapters.lora.families import MIXTRAL
from adapters.lora.patterns import ModulePattern
from adapters.lora.weights import ModelShape, read_adapter

Q = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
ZEROS_A, ZEROS_B = np.zeros((4, 32), np.float32), np.zeros((32, 4), np.float32)

CONFIGS: Mapping[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
    "no method": ({"peft_type": None}, "peft_type"),
    "dora": ({"use_dora": True}, "use_dora = True"),
    "bias": ({"bias": "lora_only"}, "bias = 'lora_only'"),
    "lora bias": ({"lora_bias": True}, "lora_bias"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "transposed": ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    "tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    "parameters": ({"target_parameters": ["experts.w"]}, "target_parameters"),
    "replicated layers": ({"layer_replication": [[0, 1]]}, "layer_replication"),
    "activated lora": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
    "qalora": ({"use_qalora": True}, "use_qalora"),
    "code": ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map = "),
    "code elsewhere": ({"auto_mapping": {"parent_library": "evil"}}, "auto_mapping = "),
    "pissa": ({"init_lora_weights": "pissa_niter_16"}, "path_initial_model_for_weight_conversion"),
    "another task": ({"task_type": "SEQ_CLS"}, "task_type"),
    "a new variant": ({"use_brand_new_lora": True}, "use_brand_new_lora = True:"),
    "another layer list": ({"layers_pattern": "h"}, "layers_pattern"),
    "no target": ({"target_modules": []}, "target_modules"),
    "null target": ({"target_modules": None}, "target_modules"),
    "head": ({"target_modules": ["q_proj", "v_proj", "lm_head"]}, "target_modules"),
    "fourth layer": ({"target_modules": ["q_proj", "v_proj", "layers.3.mlp.up_proj"]}, "2 layers"),
    "layer past the end": ({"layers_to_transform": [0, 1, 2]}, "layers_to_transform"),
    "layer as text": ({"layers_to_transform": ["0"]}, "layers_to_transform"),
    "negative layer": ({"layers_to_transform": [-1]}, "layers_to_transform"),
    "target as number": ({"target_modules": [3]}, "target_modules"),
    "part of it": (
        {"target_modules": ["q_proj", "v_proj", "k_proj"]},
        "model.layers.0.self_attn.k_proj",
    ),
    "more than it": ({"target_modules": ["q_proj"]}, "model.layers.0.self_attn.v_proj"),
    "rank 0": ({"r": 0}, "r = 0:"),
    "rank text": ({"r": "8"}, "r = '8'"),
    "of MLX": ({"peft_type": None, "lora_parameters": {"rank": 8, "scale": 20.0}}, "MLX"),
    "rank fraction": ({"r": 4.0}, "r = 4.0"),
    "rank true": ({"r": True}, "r = True"),
    "another rank": ({"r": 8}, "[8, 32]"),
    "rank over the limit": ({"r": 257}, "r = 257:"),
    "patterned rank over it": ({"rank_pattern": {"q_proj": 512}}, "rank_pattern[q_proj] = 512"),
    "patterned rank 0": ({"rank_pattern": {"q_proj": 0}}, "rank_pattern = 0"),
    "patterns as list": ({"rank_pattern": [1]}, "rank_pattern"),
    "alpha text": ({"lora_alpha": "8"}, "lora_alpha = '8'"),
    "alpha too large": ({"lora_alpha": 1e7}, "lora_alpha"),
    "alpha 0": ({"lora_alpha": 0}, "lora_alpha"),
    "patterned alpha text": ({"alpha_pattern": {"q_proj": "1"}}, "alpha_pattern"),
    "rslora as text": ({"use_rslora": "yes"}, "use_rslora"),
    "runaway pattern": ({"rank_pattern": {"(a|a)*b": 4}}, "rank_pattern = '(a|a)*b'"),
    "doubtful pattern": ({"rank_pattern": {"(q|q_proj)": 4}}, "rank_pattern = '(q|q_proj)'"),
    "runaway target": ({"target_modules": "(.*)*q_proj"}, "target_modules"),
    "runaway exclusion": ({"exclude_modules": "(x+x+)+y"}, "exclude_modules"),
}

TENSORS: Mapping[str, tuple[dict[str, Any], str]] = {
    "no B": ({B: None}, "q_proj has lora_A"),
    "no A": ({A: None}, "q_proj has lora_B"),
    "no module": ({A: None, B: None}, "model.layers.0.self_attn.q_proj"),
    "twice": ({f"{Q}.lora_A.other.weight": ZEROS_A}, f"{Q}.lora_A.other.weight"),
    "dora": ({f"{Q}.lora_magnitude_vector": np.zeros(32, np.float32)}, "use_dora=False"),
    "bias": ({f"{Q}.lora_B.bias": np.zeros(32, np.float32)}, "lora_bias=False"),
    "embedding": ({"base_model.model.model.embed_tokens.lora_embedding_A": ZEROS_A}, "embed_tokens"),
    "head": ({"base_model.model.lm_head.weight": ZEROS_A}, "save_embedding_layers=False"),
    "resized": ({"base_model.model.model.embed_tokens.weight": ZEROS_A}, "save_embedding_layers=False"),
    "LoRA on the head": ({"base_model.model.lm_head.lora_A.weight": ZEROS_A}, "lm_head"),
    "unknown": ({"surprise": ZEROS_A}, "'surprise'"),
    "no prefix": (
        {A: None, A.removeprefix("base_model.model."): ZEROS_A},
        "adapter_model.safetensors: tensor 'model.layers.0.self_attn.q_proj.lora_A.weight' is not named",
    ),
    "wrapped inside": (
        {A: None, A.replace(".0.", ".0._checkpoint_wrapped_module."): ZEROS_A},
        "is not a LoRA factor",
    ),
    "padded layer": ({A.replace(".0.", ".00."): ZEROS_A}, A.replace(".0.", ".00.")),
    "attention in mlp": ({A.replace("self_attn", "mlp"): ZEROS_A}, A.replace("self_attn", "mlp")),
    "transposed": ({A: ZEROS_A.T.copy()}, "[32, 4]"),
    "flat": ({A: ZEROS_A.ravel()}, "[128]"),
    "nan": ({A: np.full((4, 32), np.nan, np.float32)}, "NaN"),
    "infinity": ({B: np.full((32, 4), -np.inf, np.float16)}, "NaN"),
    "integers": ({A: ZEROS_A.astype(np.int32)}, " I32"),
    "doubles": ({A: ZEROS_A.astype(np.float64)}, " F64"),
}


def refused(folder: Path, shape: ModelShape, said: str, max_rank: int = 256) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        read_adapter(folder, shape, max_rank)
    assert said in str(caught.value)
    assert caught.value.remedy.endswith((".", ".pth", ".bin", ".safetensors"))
    assert str(folder) not in caught.value.public
    return caught.value


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_is_refused(case: str, make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    config, said = CONFIGS[case]
    refused(make_adapter(config=config), shape, said)


@pytest.mark.parametrize("case", TENSORS)
def test_weights_are_refused(case: str, make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    tensors, said = TENSORS[case]
    refused(make_adapter(tensors=tensors), shape, said)


def test_fields_that_are_off_are_accepted(make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    off = {"use_dora": False, "modules_to_save": None, "use_brand_new_lora": False, "new_config": {}}
    note = {"auto_mapping": {"parent_library": "transformers.models.mistral.modeling_mistral"}}
    assert read_adapter(make_adapter(config={**off, **note}), shape).modules


def test_the_limit_of_ranks_is_the_callers(make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    refused(make_adapter(), shape, "r = 4: the limit is 2", max_rank=2)


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_no_effect_is_refused(half: str, make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    shapes = (
        {"q_proj": (32, 4), "v_proj": (16, 4)} if half == "lora_B" else {"q_proj": (4, 32), "v_proj": (4, 32)}
    )
    names = [(layer, module) for layer in range(2) for module in shapes]
    zeros = {
        f"base_model.model.model.layers.{layer}.self_attn.{module}.{half}.weight": np.zeros(
            shapes[module], np.float32
        )
        for layer, module in names
    }
    refused(make_adapter("none", tensors=zeros), shape, "every update is zero")
    zeros.popitem()
    assert read_adapter(make_adapter("one", tensors=zeros), shape).modules


def test_halves_that_never_meet_have_no_effect(make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    folder = make_adapter(config={"target_modules": ["layers.0.self_attn.q_proj"]})
    a, b = ZEROS_A.copy(), ZEROS_B.copy()
    a[0], b[:, 1] = 1, 1
    save_file({A: a, B: b}, folder / "adapter_model.safetensors")
    refused(folder, shape, "lora_alpha")


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter.pth"])
def test_a_pickle_is_named_and_never_read(
    name: str, make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    error = refused(folder, shape, f"oneseek adapters import {folder / name}")
    assert "pickle" in error.reason


MLP = ["gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj", "v_proj", *MLP], "exclude_modules": MLP},
        {"target_modules": ["q_proj", "v_proj", *MLP], "exclude_modules": r".*\.mlp\..*"},
        {"target_modules": ["q_proj", "v_proj", "c_attn", "query_key_value"]},
        {"target_modules": ["q_proj", "v_proj", "self_attn.W_pack"]},
    ],
)
def test_targets_that_peft_passes_over_are_passed_over(
    config: dict[str, Any], make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    assert len(read_adapter(make_adapter(config=config), shape).modules) == 4


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"exclude_modules": ["q_proj", "v_proj"]}, "exclude_modules = "),
        ({"target_modules": ["c_attn"]}, "'c_attn'"),
        (
            {"target_modules": ["q_proj", "v_proj", "model.embed_tokens"]},
            "'model.embed_tokens'",
        ),
        (
            {"target_modules": ["q_proj", "v_proj", "model.layers.9.self_attn.q_proj"]},
            "2 layers",
        ),
        (
            {"target_modules": ["q_proj", "v_proj", *MLP], "exclude_modules": MLP[:2]},
            "model.layers.0.mlp.down_proj",
        ),
    ],
)
def test_targets_that_the_base_has_are_not_passed_over(
    config: dict[str, Any], said: str, make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    refused(make_adapter(config=config), shape, said)


def test_a_family_with_other_modules_passes_over_no_target(
    make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    """Mixtral's experts are linear modules that are not served."""
    folder = make_adapter(config={"target_modules": ["q_proj", "v_proj", "w1"]})
    assert read_adapter(folder, shape).modules
    refused(folder, replace(shape, family=MIXTRAL), "'w1'")


def test_another_base_is_said_before_a_missing_part(
    make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    partly = make_adapter(config={"target_modules": ["q_proj", "v_proj", "k_proj"]})
    refused(partly, shape, "model.layers.0.self_attn.k_proj")
    refused(partly, replace(shape, sizes=replace(shape.sizes, hidden=64)), "64]")
    whole = make_adapter("whole")
    deeper = replace(shape, sizes=replace(shape.sizes, layers=5))
    refused(whole, deeper, "5 layers")


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (["checkpoint-500"], " checkpoint-500"),
        (["checkpoint-90", "checkpoint-500"], " checkpoint-500"),
        (["out/adapter"], " out/adapter"),
    ],
)
def test_an_adapter_below_the_folder_is_pointed_at(
    places: list[str], said: str, make_adapter: Callable[..., Path], shape: ModelShape, tmp_path: Path
) -> None:
    for place in places:
        make_adapter(f"run/{place}")
    error = refused(tmp_path / "run", shape, said)
    assert str(tmp_path) not in error.public
    assert "\n" not in str(error)


def test_no_weights_and_no_config(make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").unlink()
    refused(folder, shape, "adapter_model.safetensors: ")
    (folder / "adapter_config.json").unlink()
    refused(folder, shape, "adapter_config.json: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "JSON"),
        (b"[1]", "JSON object"),
        (b"\xff\xfe{}", "UTF-8"),
        (b'{"r": 4, "r": 8}', "'r'"),
        (b'{"r": NaN}', "NaN"),
        (b'{"r":' + b"[" * 100_000, "nested"),
        (b'{"r":' + b"9" * 10_000 + b"}", "JSON"),
        (b" " * (1 << 20) + b"{}", "1048576"),
    ],
    ids=["cut", "list", "encoding", "duplicate", "nan", "deep", "digits", "large"],
)
def test_a_damaged_config_is_refused(
    text: bytes, said: str, make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    folder = make_adapter()
    (folder / "adapter_config.json").write_bytes(text)
    refused(folder, shape, said)


def header(entries: Mapping[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "safetensors header"),
        (b"\0\0", "safetensors header"),
        (struct.pack("<Q", 1 << 62) + b"{}", "safetensors header"),
        (struct.pack("<Q", 100) + b"{}", "safetensors header"),
        (struct.pack("<Q", 2) + b"[]", "JSON object"),
        (header({}), "any tensor"),
        (header({"__metadata__": {"format": "pt"}}), "any tensor"),
        (header({A: F32}), "damaged"),
        (header({A: F32, B: F32}, b"\0" * 8), "damaged"),
        (header({A: {**F32, "data_offsets": [4, 8]}}, b"\0" * 8), "damaged"),
        (header({A: {**F32, "dtype": "F33"}}, b"\0" * 4), "damaged"),
        (header({A: F32})[:-1] + b"," + header({A: F32})[9:], "JSON"),
    ],
)
def test_a_damaged_file_is_refused(
    data: bytes, said: str, make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    folder = make_adapter()
    (folder / "adapter_model.safetensors").write_bytes(data)
    refused(folder, shape, said)


def test_a_tensor_named_twice_is_refused(make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    folder = make_adapter()
    entry = json.dumps(F32)
    text = f'{{"{A}": {entry}, "{A}": {entry}}}'.encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    refused(folder, shape, "appears twice")


def test_a_header_past_the_bound_is_not_read(make_adapter: Callable[..., Path], shape: ModelShape) -> None:
    folder = make_adapter()
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 9 << 20))
        file.truncate(10 << 20)
    larger = replace(shape, sizes=replace(shape.sizes, layers=200))
    refused(folder, larger, "safetensors header")


def test_a_file_that_no_adapter_needs_is_not_read(
    make_adapter: Callable[..., Path], shape: ModelShape
) -> None:
    folder = make_adapter()
    with (folder / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    started = time.process_time()
    refused(folder, shape, f"have {1 << 40} bytes")
    assert time.process_time() - started < 1


@settings(deadline=None)
@given(st.text(max_size=200))
def test_messages_stay_short_and_printable(text: str) -> None:
    error = AdapterError(Path("file"), "is wrong", "Right it.", field="r", value=text * 50)
    assert len(str(error)) < 200
    assert str(error).isascii()
    assert str(error).isprintable()


PIECES = st.sampled_from(
    ["q_proj", ".", r"\.", ".*", r"\d+", "[0-9]", "(a|b)", "(aa|a)", "layers", "+", "(", "x" * 30]
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_pattern_is_refused_or_matched_at_once(text: str) -> None:
    try:
        pattern = ModulePattern.read(text, Path("config"), "rank_pattern")
    except AdapterError:
        return
    started = time.thread_time()
    pattern.matches_end("model.layers.10.self_attn.q_proj" + "a" * 60)
    pattern.matches_whole("model.layers.10.self_attn.q_proj" + "a" * 60)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    "text",
    [".*.*.*q_proj", r".*\d+.*", r"\d+\d*\d+", ".+.+[0-9]+", "x" * 513, "(a+)+", "(.*)*", "(q|q_proj)"],
)
def test_a_pattern_that_could_run_away_is_refused(text: str) -> None:
    with pytest.raises(AdapterError) as caught:
        ModulePattern.read(text, Path("config"), "rank_pattern")
    assert (caught.value.field, caught.value.value) == ("rank_pattern", text)

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig, MistralConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from server.engines.embedded.model.config import UnsupportedModelError
from server.engines.embedded.model.families.lookup import parse_config, read_model_config
from server.engines.embedded.model.rope import Rope

GOOD: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "sliding_window": None,
}


def test_sizes_are_read_or_derived() -> None:
    config = parse_config(GOOD)
    assert (config.head_dim, config.query_width, config.kv_width) == (16, 64, 32)
    assert config.rope == Rope(5e5)
    assert config.sliding_window is None
    assert not config.tied_head
    changed = parse_config(GOOD | {"head_dim": 32, "tie_word_embeddings": True, "sliding_window": 16})
    assert (changed.head_dim, changed.tied_head, changed.sliding_window) == (32, True, 16)
    assert parse_config({k: v for k, v in GOOD.items() if k != "num_key_value_heads"}).kv_heads == 4


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
FULL, SLIDING = "full_attention", "sliding_attention"


@pytest.mark.parametrize(
    ("change", "window"),
    [
        ({"sliding_window": 16}, 16),
        ({"sliding_window": 16, "layer_types": None}, 16),
        ({"sliding_window": 16, "layer_types": [FULL, FULL]}, None),
        ({"sliding_window": 16, "layer_types": ["attention", FULL]}, None),
        ({"sliding_window": 16, "layer_types": [SLIDING, SLIDING]}, 16),
        ({**LLAMA, "sliding_window": 16}, None),
        ({**LLAMA, "sliding_window": 16, "layer_types": [FULL, FULL]}, None),
    ],
)
def test_the_window_is_the_one_that_transformers_computes(change: dict[str, Any], window: int | None) -> None:
    assert parse_config(GOOD | change).sliding_window == window


def test_a_mistral_that_says_nothing_of_its_window_has_transformers_own() -> None:
    silent = {key: value for key, value in GOOD.items() if key != "sliding_window"}
    assert parse_config(silent).sliding_window == MistralConfig().sliding_window
    assert parse_config(silent | LLAMA).sliding_window is None


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window": 16, "layer_types": [FULL, SLIDING]},
        {"sliding_window": 16, "layer_types": [SLIDING]},
        {"sliding_window": 16, "layer_types": FULL},
        {"sliding_window": 16, "layer_types": [FULL, "chunked_attention"]},
        {"sliding_window": 16, "layer_types": [FULL, {}]},
        {"sliding_window": None, "layer_types": [SLIDING, SLIDING]},
        {**LLAMA, "sliding_window": 16, "layer_types": [SLIDING, SLIDING]},
    ],
)
def test_layer_types_that_are_not_built_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="layer_types"):
        parse_config(GOOD | change)


def test_both_ways_of_writing_rope_are_read() -> None:
    old = parse_config(GOOD | {"rope_scaling": {"type": "linear", "factor": 4.0}})
    new = parse_config(
        GOOD
        | {"rope_theta": None, "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0}}
    )
    assert old.rope == new.rope
    assert old.rope == Rope(5e5, linear_factor=4.0)


SCALED: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_scaling": SCALED},
        {"rope_parameters": SCALED | {"rope_theta": 1e6}, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": SCALED | {"rope_theta": 1e6}, "rope_scaling": {}},
        {"rope_scaling": SCALED, "original_max_position_embeddings": 64},
        {
            "rope_scaling": {key: value for key, value in SCALED.items() if "original" not in key},
            "original_max_position_embeddings": 64,
        },
    ],
)
def test_rope_fields_that_contradict_each_other_are_read_as_in_transformers(change: dict[str, Any]) -> None:
    reference = LlamaRotaryEmbedding(LlamaConfig(**deepcopy(GOOD | change)))
    rope = parse_config(GOOD | LLAMA | change).rope
    assert rope is not None
    np.testing.assert_allclose(rope.frequencies(16), np.asarray(reference.inv_freq), rtol=1e-6)


def test_a_rope_scaling_beside_rope_parameters_is_not_passed_over() -> None:
    both = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_scaling": {"type": "yarn"}}
    with pytest.raises(UnsupportedModelError, match="rope_type 'yarn'"):
        parse_config(GOOD | both)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
        ({"model_type": "mamba"}, "model_type 'mamba'"),
        ({"model_type": None}, "model_type None"),
        ({"architectures": ["MistralForSequenceClassification"]}, "MistralForSequenceClassification"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"is_causal": False}, "is_causal False"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_size": 0}, "hidden_size 0"),
        ({"vocab_size": "many"}, "vocab_size 'many'"),
        ({"num_hidden_layers": True}, "num_hidden_layers True"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"head_dim": 20}, "head_dim 20"),
        ({"hidden_size": 66}, "hidden_size 66"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps 0.0"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type 'yarn'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor None"),
        ({"rope_parameters": 3}, "rope_parameters 3"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "rope_parameters .*full_attention"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_theta": -1.0}, "rope_theta -1"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        parse_config(GOOD | change)


QWEN2: dict[str, Any] = {
    key: value for key, value in GOOD.items() if key not in ("sliding_window", "architectures")
} | {"model_type": "qwen2"}
QWEN3 = QWEN2 | {"model_type": "qwen3"}
GPT2: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": None,
    "n_positions": 128,
    "n_ctx": 999,
    "vocab_size": 100,
    "activation_function": "gelu",
    "layer_norm_epsilon": 1e-5,
    "apply_query_key_layer_scaling": True,
    "resid_pdrop": 0.1,
}


@pytest.mark.parametrize(
    ("change", "window"),
    [
        ({}, None),
        ({"sliding_window": 16}, None),
        ({"sliding_window": 16, "use_sliding_window": False, "max_window_layers": 0}, None),
        ({"sliding_window": 16, "use_sliding_window": True}, None),
        ({"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 2}, None),
        ({"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0}, 16),
        ({"sliding_window": None, "use_sliding_window": True, "max_window_layers": 0}, None),
        ({"use_sliding_window": True, "max_window_layers": 0}, 4096),
        ({"sliding_window": 16, "use_sliding_window": True, "layer_types": [SLIDING, SLIDING]}, 16),
        ({"sliding_window": 16, "use_sliding_window": True, "layer_types": [FULL, FULL]}, None),
    ],
)
@pytest.mark.parametrize("base", [QWEN2, QWEN3])
def test_a_qwens_window_is_the_one_that_transformers_computes(
    base: dict[str, Any], change: dict[str, Any], window: int | None
) -> None:
    assert parse_config(base | change).sliding_window == window


def test_what_qwens_differ_in_is_read() -> None:
    two, three = parse_config(QWEN2), parse_config(QWEN3)
    assert (two.biases, two.head_norm, two.head_dim) == ({"qkv"}, False, 16)
    assert (three.biases, three.head_norm, three.head_dim) == (set(), True, 128)
    assert parse_config(QWEN3 | {"head_dim": 32, "attention_bias": True}).biases == {"qkv", "o"}
    llama = {key: value for key, value in GOOD.items() if key != "sliding_window"} | LLAMA
    assert parse_config(llama | {"mlp_bias": True}).biases == {"gate", "up", "down"}
    assert parse_config(llama | {"attention_bias": True}).biases == {"qkv", "o"}


def test_what_gpt2_computes_is_read() -> None:
    config = parse_config(GPT2)
    assert (config.intermediate, config.context, config.head_dim) == (256, 128, 16)
    assert (config.activation, config.tied_head, config.rope) == ("gelu", True, None)
    assert [config.score_scale(layer) for layer in range(2)] == [0.25, 0.25]
    scaled = parse_config(GPT2 | {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False})
    assert [scaled.score_scale(layer) for layer in range(2)] == [1.0, 0.5]
    assert parse_config(GPT2 | {"n_inner": 96, "tie_word_embeddings": False}).intermediate == 96
    plain = {key: value for key, value in GPT2.items() if key != "activation_function"}
    assert parse_config(plain).activation == "gelu_tanh"
    assert parse_config(GPT2 | {"hidden_size": 64}).hidden == 64


@pytest.mark.parametrize(
    ("base", "change", "named"),
    [
        (QWEN2, {"use_sliding_window": True, "max_window_layers": 1}, "max_window_layers 1"),
        (QWEN2, {"use_sliding_window": "no"}, "use_sliding_window 'no'"),
        (QWEN3, {"layer_types": [FULL, SLIDING]}, "layer_types"),
        (QWEN3, {"layer_types": [SLIDING, SLIDING]}, "layer_types"),
        (QWEN3, {"use_sliding_window": True, "max_window_layers": None}, "max_window_layers None"),
        (QWEN3, {"attention_bias": 1}, "attention_bias 1"),
        (QWEN3, {"head_dim": 20}, "head_dim 20"),
        (QWEN2, {"is_causal": False}, "is_causal False"),
        (QWEN2, {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        (QWEN2, {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type 'yarn'"),
        (QWEN2, {"architectures": ["Qwen2ForSequenceClassification"]}, "Qwen2ForSequenceClassification"),
        (GPT2, {"is_causal": False}, "is_causal False"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention"),
        (GPT2, {"activation_function": "mish"}, "activation_function 'mish'"),
        (GPT2, {"activation_function": None}, "activation_function None"),
        (GPT2, {"scale_attn_weights": "yes"}, "scale_attn_weights 'yes'"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": 1}, "scale_attn_by_inverse_layer_idx 1"),
        (GPT2, {"layer_norm_epsilon": 0.0}, "layer_norm_epsilon 0.0"),
        (GPT2, {"n_inner": 0}, "n_inner 0"),
        (GPT2, {"n_head": 5}, "n_embd 64 .*n_head 5"),
        (GPT2, {"n_head": 16}, "n_embd / n_head"),
        (GPT2, {"n_positions": None}, "n_positions None"),
        (GPT2, {"hidden_size": 32}, "hidden_size 32"),
        (GPT2, {"max_position_embeddings": 256}, "max_position_embeddings 256"),
        (GPT2, {"tie_word_embeddings": 0}, "tie_word_embeddings 0"),
        (GPT2, {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        (GPT2, {"architectures": ["GPT2DoubleHeadsModel"]}, "GPT2DoubleHeadsModel"),
    ],
)
def test_what_another_family_would_get_wrong_is_refused_by_name(
    base: dict[str, Any], change: dict[str, Any], named: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        parse_config(base | change)


def test_an_unknown_architecture_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UnsupportedModelError, match="mistral, llama, qwen2, qwen3, gpt2"):
        parse_config(GOOD | {"model_type": "mamba"})


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"config\.json"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnsupportedModelError, match=r"config\.json"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UnsupportedModelError, match=r"config\.json"):
        read_model_config(tmp_path)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import MistralConfig

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


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
        ({"model_type": "mamba"}, "model_type 'mamba'"),
        ({"model_type": None}, "model_type None"),
        ({"architectures": ["MistralForSequenceClassification"]}, "MistralForSequenceClassification"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
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
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "rope_parameters for full_attention"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_theta": -1.0}, "rope_theta -1"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        parse_config(GOOD | change)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"no config\.json"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnsupportedModelError, match="not JSON"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UnsupportedModelError, match="not an object"):
        read_model_config(tmp_path)

"""What can be said of a graph without running it: what device providers ask for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from server.engines.embedded.model import decoder as module
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.decoder import plan_graph
from server.engines.embedded.model.families.llama import LLAMA
from server.engines.embedded.model.families.lookup import parse_config
from server.engines.embedded.model.plan import IR_VERSION, ONNX_TYPES, OPSET, Dtype, GraphPlan
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.rope import Rope
from server.engines.embedded.model.variants import FUSED, PORTABLE, Variant

CONFIG = ModelConfig(
    family=LLAMA,
    hidden=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    intermediate=96,
    vocabulary=96,
    context=128,
    norm_epsilon=1e-5,
    rope=Rope(1e4),
    tied_head=False,
)
_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 96,
    "max_position_embeddings": 128,
}
_GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 96,
    "vocab_size": 96,
    "n_positions": 128,
}
FAMILIES: Mapping[str, ModelConfig] = {
    "llama": CONFIG,
    "llama_biased": parse_config(_SIZES | {"model_type": "llama", "attention_bias": True, "mlp_bias": True}),
    "qwen2": parse_config(_SIZES | {"model_type": "qwen2"}),
    "qwen3": parse_config(_SIZES | {"model_type": "qwen3"}),
    "gpt2": parse_config(_GPT2),
    "gpt2_exact": parse_config(_GPT2 | {"activation_function": "gelu"}),
    "gpt2_quick": parse_config(_GPT2 | {"activation_function": "quick_gelu"}),
    "gpt2_relu": parse_config(_GPT2 | {"activation_function": "relu"}),
}
KINDS: list[tuple[Dtype, Quantize]] = [("fp32", "none"), ("fp16", "none"), ("fp32", "int8"), ("fp32", "int4")]


def sizes(config: ModelConfig, rows: int, length: int) -> dict[str, int]:
    """Of every named dimension, for a run of `rows` rows of `length` positions."""
    shared = config.heads // config.kv_heads
    named = {"B": rows, "S": length, "T": 32, "GS": shared * length, "M": rows}
    return named | {f"R_{group}": 2 * len(modules) for group, modules in config.groups.items()}


def finished(plan: GraphPlan) -> onnx.ModelProto:
    """The model, its weights zero."""
    external: list[TensorProto] = []
    for weight in plan.weights:
        for spec in weight.tensors:
            raw = np.zeros(spec.shape, spec.dtype).tobytes()
            kind = ONNX_TYPES[spec.dtype.name]
            external.append(helper.make_tensor(spec.name, kind, spec.shape, raw, raw=True))
    return helper.make_model(
        plan.graph(external), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )


def fixed(plan: GraphPlan, known: Mapping[str, int]) -> onnx.ModelProto:
    """The same with every named dimension given its size, and all shapes inferred."""
    model = finished(plan)
    for value in itertools.chain(model.graph.input, model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_value = known[dimension.dim_param]
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "quantize"), KINDS)
def test_the_portable_graph_is_made_of_what_device_providers_run(
    dtype: Dtype, quantize: Quantize, family: str
) -> None:
    plan = plan_graph(FAMILIES[family], PORTABLE, dtype, quantize)
    kinds = {(node.domain, node.op_type) for node in plan.nodes}
    assert "Shape" not in {kind for _, kind in kinds}
    foreign = {kind for domain, kind in kinds if domain}
    assert foreign == (set() if quantize == "none" else {"MatMulNBits"})
    assert OPSET <= 20


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_the_portable_graph_has_static_shapes_and_products_of_rank_four_at_most(
    dtype: Dtype, family: str
) -> None:
    config = FAMILIES[family]
    model = fixed(plan_graph(config, PORTABLE, dtype, "none"), sizes(config, 4, 8))
    onnx.checker.check_model(model, full_check=True)
    ranks: dict[str, int] = {}
    for value in itertools.chain(model.graph.input, model.graph.output, model.graph.value_info):
        dimensions = value.type.tensor_type.shape.dim
        assert all(dimension.HasField("dim_value") for dimension in dimensions), value.name
        ranks[value.name] = len(dimensions)
    ranks |= {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert products
    for node in products:
        assert all(ranks[name] <= 4 for name in (*node.input, *node.output)), node.name
    assert all(name in ranks for node in model.graph.node for name in node.output)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", [FUSED, PORTABLE])
def test_every_input_is_documented(variant: Variant, family: str) -> None:
    plan = plan_graph(FAMILIES[family], variant, "fp32", "none")
    documented = module.__doc__ or ""
    for value in (*plan.inputs, *plan.outputs):
        kind = value.name.split(".")[0]
        assert f"    {kind}" in documented or f"{kind}." in documented or f" {kind} " in documented, kind


@pytest.mark.parametrize("variant", [FUSED, PORTABLE])
@pytest.mark.parametrize("tied", [False, True])
def test_every_weight_of_the_checkpoint_is_read_once(variant: Variant, tied: bool) -> None:
    config = replace(CONFIG, tied_head=tied)
    plan = plan_graph(config, variant, "fp32", "none")
    read = [name for weight in plan.weights for name, _ in weight.sources]
    expected = {"model.embed_tokens.weight", "model.norm.weight"} | (set() if tied else {"lm_head.weight"})
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        expected |= {f"{prefix}.self_attn.{name}_proj.weight" for name in "qkvo"}
        expected |= {f"{prefix}.mlp.{name}_proj.weight" for name in ("gate", "up", "down")}
        expected |= {f"{prefix}.{name}_layernorm.weight" for name in ("input", "post_attention")}
    assert sorted(read) == sorted(expected)


def test_a_combination_that_is_not_built_is_refused() -> None:
    with pytest.raises(ValueError, match="fp16"):
        plan_graph(CONFIG, FUSED, "fp16", "none")


@given(heads=st.sampled_from([1, 2, 4]), group=st.sampled_from([1, 2, 3]), dim=st.sampled_from([2, 8, 14]))
def test_any_sizes_make_a_valid_portable_graph(heads: int, group: int, dim: int) -> None:
    config = replace(CONFIG, heads=heads * group, kv_heads=heads, head_dim=dim, layers=1)
    onnx.checker.check_model(finished(plan_graph(config, PORTABLE, "fp32", "none")), full_check=True)

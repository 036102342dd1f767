"""Every node of the graphs that device providers are given, against what DirectML has kernels for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import onnx
import onnx.defs
import pytest
from onnx import TensorProto, helper

from server.engines.embedded.model.decoder import plan_graph
from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.variants import PORTABLE
from tests.server.engines.embedded.model.test_decoder_static import CONFIG, FAMILIES, finished, sizes
from tests.server.engines.embedded.runners.device.directml import (
    TYPES,
    faults,
    fixed,
    optimised,
    registered,
    tensors,
)

GRAPHS: list[tuple[Dtype, Quantize]] = [
    (dtype, quantize) for dtype in ("fp32", "fp16") for quantize in ("none", "int8", "int4")
]
SESSIONS = {"decode": (4, 1), "prefill": (1, 8)}
"""Rows, and positions of a row, in a run."""


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize(
    ("family", "tied"), [("llama", False), *((name, name != "qwen3") for name in FAMILIES)]
)
@pytest.mark.parametrize(("dtype", "quantize"), GRAPHS)
def test_directml_has_a_kernel_for_every_node(
    dtype: Dtype, quantize: Quantize, tied: bool, family: str, session: str
) -> None:
    config = replace(FAMILIES[family], tied_head=tied)
    plan = plan_graph(config, PORTABLE, dtype, quantize)
    assert faults(fixed(finished(plan), sizes(config, *SESSIONS[session]))) == []


@pytest.mark.parametrize(
    ("family", "session"), [("llama", "decode"), *((name, "prefill") for name in FAMILIES)]
)
@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_what_onnx_runtime_makes_of_the_graph_has_kernels_too(
    tmp_path: Path, quantize: Quantize, family: str, session: str
) -> None:
    config = FAMILIES[family]
    model = finished(plan_graph(config, PORTABLE, "fp32", quantize))
    given = optimised(model, sizes(config, *SESSIONS[session]), tmp_path)
    assert {node.op_type for node in given.graph.node} <= {node.op_type for node in model.graph.node}
    assert faults(given) == []


def one_node(node: onnx.NodeProto, shapes: dict[str, list[int]], opset: int = 17) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    inputs = [value for value in values if value.name in node.input]
    outputs = [value for value in values if value.name in node.output]
    graph = helper.make_graph([node], "one", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_what_directml_does_not_run_is_found() -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["y"], "product")
    good = {"a": [2, 3], "b": [3, 4], "y": [2, 4]}
    assert faults(one_node(node, good)) == []
    wide = {name: [1, 1, 1, *shape] for name, shape in good.items()}
    assert [re.findall(r"product: MatMul .*(\d)", fault) for fault in faults(one_node(node, wide))] == [
        ["5"]
    ] * 3
    assert faults(one_node(node, good | {"a": [0, 3], "y": [0, 4]})) == ["a: shape [0, 3]", "y: shape [0, 4]"]
    assert "opset 21" in faults(one_node(node, good, 21))[0]
    shape = helper.make_node("Shape", ["a"], ["y"], "shape")
    assert any(
        re.search(r"^shape: Shape .*\bCPU\b", one) for one in faults(one_node(shape, {"a": [2], "y": [1]}))
    )
    unknown = helper.make_node("Det", ["a"], ["y"], "det")
    assert "Det" in faults(one_node(unknown, {"a": [2, 2], "y": [1]}))[0]
    integers = one_node(node, good)
    integers.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    (fault,) = faults(integers)
    assert re.search(r"^product: MatMul .*\bint32\b.*\ba\b", fault)
    untyped = one_node(node, {name: good[name] for name in "ab"})
    (fault,) = faults(untyped)
    assert re.search(r"^product: .*\by\b", fault)


def test_a_later_definition_of_an_operator_is_another_operator() -> None:
    model = finished(plan_graph(CONFIG, PORTABLE, "fp32", "none"))
    for node in model.graph.node:
        assert onnx.defs.get_schema(node.op_type, 17).since_version in registered()[node.op_type]
    model.opset_import[0].version = 18
    assert any(re.search(r"\bScatterND\b.*\b18\b.*\[13, 16\]", fault) for fault in faults(model))


def test_the_quantised_product_keeps_directmls_rules() -> None:
    odd = replace(CONFIG, intermediate=80)
    found = faults(fixed(finished(plan_graph(odd, PORTABLE, "fp32", "int4")), sizes(CONFIG, 4, 1)))
    assert len(found) == odd.layers
    assert all(re.search(r"\bMatMulNBits\b.*\b80\b.*\b32\b", fault) for fault in found)
    model = fixed(finished(plan_graph(CONFIG, PORTABLE, "fp32", "int4")), sizes(CONFIG, 4, 1))
    node = next(node for node in model.graph.node if node.op_type == "MatMulNBits")
    # The reshape before it made its rows one batch.
    node.input[0] = next(other.input[0] for other in model.graph.node if node.input[0] in other.output)
    (fault,) = faults(model)
    assert fault.startswith(f"{node.name}: MatMulNBits ")


def test_the_table_speaks_of_operators_that_are_there() -> None:
    table = registered()
    assert len(table) > 130
    for name, registrations in table.items():
        for opset, letters in registrations.items():
            assert all(letter in TYPES or letter in "*~" for letter in letters), name
            if "::" not in name and name != "SimplifiedLayerNormalization":
                assert onnx.defs.get_schema(name, opset).since_version == opset, name


def test_tensors_are_known_by_onnx_runtimes_names() -> None:
    model = one_node(helper.make_node("Exp", ["a"], ["y"]), {"a": [2], "y": [2]})
    assert {(tensor.type, tensor.shape) for tensor in tensors(model).values()} == {("float", (2,))}

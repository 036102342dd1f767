"""Builds small ONNX graphs that create and copy arrays in a device's memory. Each function returns a
serialised model.

All shapes are fixed. Inputs x0, x1, … and outputs y0, y1, … are the keys and the values of each layer, in one
array each, and all have the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from server.engines.embedded.model.plan import IR_VERSION, ONNX_TYPES, OPSET

BlockShape = tuple[int, int, int, int]
"""Shape of a block of KV cache: (slots, KV heads, positions, head size)."""


def upload(dtype: str, rank: int) -> bytes:
    """Return a graph that copies `x0`, an array of any shape.

    It uploads `x0` if its input is in host memory and its output on the device.
    """
    value = [_value(name, dtype, [None] * rank) for name in ("x0", "y0")]
    return _model([helper.make_node("Identity", ["x0"], ["y0"])], value[:1], value[1:])


def zeros(dtype: str, shape: BlockShape) -> bytes:
    """Return a graph that creates an array of zeros with this `shape`.

    Its input `x0` [1, 1, 1, 1] is ignored.
    """
    nodes = [helper.make_node("Expand", ["x0", "shape"], ["y0"])]
    constants = {"shape": np.array(shape, dtype=np.int64)}
    return _model(nodes, [_value("x0", dtype, (1, 1, 1, 1))], [_value("y0", dtype, shape)], constants)


def take(dtype: str, count: int, shape: BlockShape, rows: int, positions: int) -> bytes:
    """Return a graph that copies some KV cache slots out of each array of keys or values, and cuts or
    zero-pads them to `positions`.

    The graph's input `rows` holds the indices of the slots.
    """
    _, heads, held, dim = shape
    nodes: list[NodeProto] = []
    constants: dict[str, NDArray[np.int64]] = {}
    if positions > held:
        constants["pads"] = np.array([0] * 6 + [positions - held, 0], dtype=np.int64)
    if positions < held:
        constants |= {
            name: np.array([value], dtype=np.int64)
            for name, value in (("begin", 0), ("end", positions), ("axis", 2))
        }
    for i in range(count):
        fits = positions == held
        nodes.append(helper.make_node("Gather", [f"x{i}", "rows"], [f"y{i}" if fits else f"g{i}"], axis=0))
        if positions > held:
            nodes.append(helper.make_node("Pad", [f"g{i}", "pads"], [f"y{i}"]))
        if positions < held:
            nodes.append(helper.make_node("Slice", [f"g{i}", "begin", "end", "axis"], [f"y{i}"]))
    inputs = [_value("rows", "int64", [rows]), *(_value(f"x{i}", dtype, shape) for i in range(count))]
    outputs = [_value(f"y{i}", dtype, (rows, heads, positions, dim)) for i in range(count)]
    return _model(nodes, inputs, outputs, constants)


def put(dtype: str, count: int, shape: BlockShape) -> bytes:
    """Return a graph that copies the arrays x0, x1, … and replaces one slot of each by the only slot of s0,
    s1, … The input `rows` [1, 1] holds the index of the slot to replace.
    """
    nodes = [helper.make_node("ScatterND", [f"x{i}", "rows", f"s{i}"], [f"y{i}"]) for i in range(count)]
    inputs = [_value("rows", "int64", [1, 1])]
    for i in range(count):
        inputs += [_value(f"x{i}", dtype, shape), _value(f"s{i}", dtype, (1, *shape[1:]))]
    return _model(nodes, inputs, [_value(f"y{i}", dtype, shape) for i in range(count)])


def _value(name: str, dtype: str, shape: Sequence[int | None]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[dtype], shape)


def _model(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    constants: dict[str, NDArray[np.int64]] | None = None,
) -> bytes:
    kept: list[TensorProto] = [
        numpy_helper.from_array(value, name) for name, value in (constants or {}).items()
    ]
    graph = helper.make_graph(nodes, "moves", inputs, outputs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()

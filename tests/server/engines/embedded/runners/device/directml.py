"""What DirectML asks of a graph, checked without DirectML: the operators that ONNX Runtime registers for it
(`directml.tsv`), and the rules of those kernels that concern a decoder.

What it cannot show: numbers, speed, memory and the faults of a driver.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.defs
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper

TABLE = Path(__file__).with_name("directml.tsv")
NEWEST_OPSET = 20
LARGEST_RANK = 4
"""Of a matrix product."""
_FLOATS = {"float", "float16"}
_UNSIGNED = {"uint8", "uint16", "uint32", "uint64"}
_INTEGERS = _UNSIGNED | {"int8", "int16", "int32", "int64"}
TYPES: Mapping[str, set[str]] = {
    "F": _FLOATS,
    "N": _FLOATS | _INTEGERS,
    "A": _FLOATS | _INTEGERS | {"double", "bool"},
    "S": _FLOATS | {"int8", "int16", "int32", "int64"},
    "R": _FLOATS | {"int32", "int64", "uint32", "uint64"},
    "G": _INTEGERS,
    "U": _UNSIGNED,
    "J": {"int32", "int64"},
    "L": {"int64"},
    "I": {"int32"},
    "E": {"float"},
    "B": {"bool"},
    "Z": {"int8", "uint8"},
    "Q": {"int8", "uint8", "int32"},
    "Y": {"uint8"},
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of a value before the graph runs; a dimension that is not known is None."""

    type: str
    shape: tuple[int | None, ...]


def registered() -> dict[str, dict[int, list[str]]]:
    """Operator → opset of a registration → types of its inputs, by letter."""
    found: dict[str, dict[int, list[str]]] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, opsets, types = line.split("\t")
            for opset in opsets.split(","):
                found.setdefault(name, {})[int(opset)] = types.split()
    return found


def fixed(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """The model with every named dimension given its size, and what follows from that for each value."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    for value in itertools.chain(known.graph.input, known.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = sizes[dimension.dim_param]
    plain = onnx.shape_inference.infer_shapes(_dequantised(known), strict_mode=True, data_prop=True)
    del known.graph.value_info[:]
    known.graph.value_info.extend(plain.graph.value_info)
    return known


def optimised(model: onnx.ModelProto, sizes: Mapping[str, int], scratch: Path) -> onnx.ModelProto:
    """The model as ONNX Runtime's basic passes leave it; fp32 alone, else it adds what its CPU wants."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    options.log_severity_level = 3
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return fixed(onnx.load(scratch / "optimised.onnx"), sizes)


def faults(model: onnx.ModelProto) -> list[str]:
    """Everything for which DirectML would refuse the model or leave a part of it to the CPU."""
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    found: list[str] = []
    if opsets[""] > NEWEST_OPSET:
        found.append(f"opset {opsets['']}: DirectML knows {NEWEST_OPSET} at most")
    values, table = tensors(model), registered()
    for node in model.graph.node:
        found += [f"{node.name}: {fault}" for fault in _kernel_faults(node, opsets, values, table)]
        found += [f"{node.name}: {fault}" for fault in _rule_faults(node, values)]
    for name, tensor in values.items():
        if not all(tensor.shape):  # a scalar has no dimension; None is not known, and 0 holds nothing
            found.append(f"{name}: shape {list(tensor.shape)}")
    return found


def tensors(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Every value of the graph whose type is known."""
    graph = model.graph
    found = {tensor.name: Tensor(_type(tensor.data_type), tuple(tensor.dims)) for tensor in graph.initializer}
    for value in itertools.chain(graph.input, graph.output, graph.value_info):
        shape = value.type.tensor_type.shape.dim
        found[value.name] = Tensor(
            _type(value.type.tensor_type.elem_type),
            tuple(size.dim_value if size.HasField("dim_value") else None for size in shape),
        )
    return found


def _kernel_faults(
    node: NodeProto,
    opsets: Mapping[str, int],
    values: Mapping[str, Tensor],
    table: Mapping[str, Mapping[int, list[str]]],
) -> Iterator[str]:
    """Whether a kernel is registered for the operator, of this opset's definition and these types."""
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    since = 1
    if not node.domain:
        since = onnx.defs.get_schema(node.op_type, opsets[""]).since_version
    if since not in table.get(kind, {}):
        yield f"no kernel for {kind} as opset {since} defines it; {sorted(table.get(kind, {})) or 'none'}"
        return
    letters = table[kind][since]
    for name, letter in zip(node.input, _each(letters, len(node.input)), strict=True):
        if name and name not in values:
            yield f"the type of {name} is not known"
        elif name and letter != "*" and values[name].type not in TYPES[letter]:
            yield f"{kind} takes no {values[name].type} as {name}"
    for name in node.output:
        if name and name not in values:
            yield f"the type of {name} is not known"


def _rule_faults(node: NodeProto, values: Mapping[str, Tensor]) -> Iterator[str]:
    """What the kernels say only when they run."""
    if node.op_type in ("Shape", "Size"):
        yield f"{node.op_type} computes on the CPU"
    if node.op_type in ("MatMul", "MatMulNBits", "Gemm"):
        for name in (*node.input, *node.output):
            if name in values and len(values[name].shape) > LARGEST_RANK:
                yield f"{node.op_type} of rank {len(values[name].shape)}"
    if node.op_type == "MatMulNBits":
        given = {attribute.name: attribute.i for attribute in node.attribute}
        if node.input[0] in values and len(values[node.input[0]].shape) != 2:
            yield "MatMulNBits of a batch: DirectML would unpack its weight for each row"
        if len(node.input) != 4:
            yield f"MatMulNBits with {len(node.input)} inputs: DirectML's wants zero points, and no more"
        if given["bits"] not in (4, 8):
            yield f"MatMulNBits of {given['bits']} bits"
        if given["K"] % given["block_size"]:
            yield f"MatMulNBits of {given['K']} features: not a multiple of {given['block_size']}"


def _dequantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with products of plain weights in place of those that ONNX does not know the shapes of."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    types = {tensor.name: tensor.data_type for tensor in plain.graph.initializer}
    for node in plain.graph.node:
        if node.op_type == "MatMulNBits":
            given = {attribute.name: attribute.i for attribute in node.attribute}
            x, packed, scales = node.input[:3]
            weight = helper.make_tensor_value_info(f"{packed}.plain", types[scales], [given["K"], given["N"]])
            plain.graph.input.append(weight)
            node.CopyFrom(helper.make_node("MatMul", [x, weight.name], list(node.output), node.name))
    return plain


def _each(letters: list[str], count: int) -> list[str]:
    if letters[-1] == "~":
        letters = letters[:-1] + [letters[-2]] * count
    assert len(letters) >= count, letters
    return letters[:count]


def _type(number: int) -> str:
    """As ONNX Runtime's documents call an element type."""
    return TensorProto.DataType.Name(number).lower()

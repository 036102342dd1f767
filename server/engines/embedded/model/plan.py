"""Plans an ONNX graph without its weights: nodes, inputs, outputs, and the checkpoint tensors from which each
weight is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from server.engines.embedded.model.checkpoint import Checkpoint, Matrix, spans
from server.engines.embedded.model.parallel import in_parallel
from server.engines.embedded.model.quantize import quantize_channels, quantize_rows, zero_point

Array = NDArray[np.generic]
Dtype = Literal["fp32", "fp16"]
"""Number format in which a graph computes."""
NUMPY: dict[Dtype, str] = {"fp32": "float32", "fp16": "float16"}
Attribute = int | float | list[int]
FillTensors = Callable[[Checkpoint, Sequence[Array]], None]
"""Function that computes the arrays of one `Weight` from the checkpoint, and writes them into the given
arrays in order.
"""

OPSET = 17
"""ONNX operator set version. DirectML supports ScatterND up to opset 16; the ScatterND of opset 18 would
silently run on the CPU.
"""
IR_VERSION = 10
PART_BYTES = 1 << 20
"""Bytes of a matrix that a thread quantises at a time. They are few, so that intermediate arrays stay in the
core's cache.
"""
MICROSOFT = "com.microsoft"
ONNX_TYPES: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One weight tensor (ONNX initializer) of the graph.

    It is stored in the data file next to the graph's file.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Size of the weight tensor in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Weight:
    """Tensors of the graph that are made in one call, such as a quantized matrix and its scales, and the
    checkpoint tensors that they are made from.
    """

    tensors: tuple[TensorSpec, ...]
    sources: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and shape of each checkpoint tensor that `fill` reads."""
    fill: FillTensors


@dataclass(slots=True)
class GraphPlan:
    """An ONNX graph that is built up node by node."""

    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    inputs: list[ValueInfoProto] = field(default_factory=list[ValueInfoProto])
    outputs: list[ValueInfoProto] = field(default_factory=list[ValueInfoProto])
    constants: dict[tuple[str, tuple[int, ...], bytes], TensorProto] = field(
        default_factory=dict[tuple[str, tuple[int, ...], bytes], TensorProto]
    )
    weights: list[Weight] = field(default_factory=list[Weight])
    embedding: str = ""
    """Name of the checkpoint tensor in which token ids are looked up."""
    prefix: str = ""
    """Prefix of the weights' names. Checkpoints that were saved without the output head lack it."""

    @property
    def size(self) -> int:
        """Size of all the graph's weights in bytes."""
        return sum(tensor.size for weight in self.weights for tensor in weight.tensors)

    def op(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str] = (),
        *,
        domain: str = "",
        **attributes: Attribute,
    ) -> str:
        """Add an ONNX node of this kind, and return the name of its first output."""
        name = f"{kind}_{len(self.nodes)}"
        outputs = outputs or (f"{name}_out",)
        node = helper.make_node(kind, inputs, outputs, name=name, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return outputs[0]

    def split(self, tensor: str, sizes: Sequence[int]) -> list[str]:
        """Split a tensor along its last axis into parts of these sizes. Return the names of the parts."""
        outputs = [f"Split_{len(self.nodes)}_out{i}" for i in range(len(sizes))]
        self.op("Split", [tensor, self.integers(*sizes)], outputs, axis=-1)
        return outputs

    def reshape(self, tensor: str, *shape: int) -> str:
        """Reshape a tensor. In `shape`, 0 keeps a dimension, and -1 infers it from the others."""
        return self.op("Reshape", [tensor, self.integers(*shape)])

    def integers(self, *values: int) -> str:
        """Add a constant int64 vector to the graph, and return its name."""
        return self.constant(np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        """Add a constant int64 scalar to the graph, and return its name."""
        return self.constant(np.array(value, dtype=np.int64))

    def constant(self, value: Array) -> str:
        """Add a small constant to the graph's ONNX file, not to its data file.

        Return its name; equal constants are stored once.
        """
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(value, f"constant_{len(self.constants)}")
        return self.constants[key].name

    def input(self, name: str, dtype: str, shape: Sequence[str | int]) -> str:
        """Declare an input of the graph.

        A string in `shape` names a dimension whose size is set when the graph is run.
        """
        self.inputs.append(helper.make_tensor_value_info(name, ONNX_TYPES[dtype], shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[str | int]) -> str:
        """Declare an output of the graph. A node must write a tensor with this `name`."""
        self.outputs.append(helper.make_tensor_value_info(name, ONNX_TYPES[dtype], shape))
        return name

    def table(self, name: str, value: Array) -> str:
        """Add a weight whose `value` is given by the caller, not read from the checkpoint."""

        def fill(_: Checkpoint, targets: Sequence[Array]) -> None:
            targets[0][...] = value

        self.weights.append(Weight((TensorSpec(name, value.dtype, value.shape),), (), fill))
        return name

    def copy_tensor(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> str:
        """Add the checkpoint tensor `name` as a weight, converted to `dtype` but otherwise unchanged."""

        def fill(checkpoint: Checkpoint, targets: Sequence[Array]) -> None:
            if len(shape) == 1:
                targets[0][...] = checkpoint.read(name)
                return
            out, features = shape
            for start, rows in checkpoint.blocks(Matrix(name, out, features)):
                targets[0][start : start + len(rows)] = rows

        self.weights.append(Weight((TensorSpec(name, np.dtype(dtype), shape),), ((name, shape),), fill))
        return name

    def transpose_matrices(self, name: str, matrices: Sequence[Matrix], dtype: DTypeLike) -> str:
        """Add checkpoint matrices [out, in] as one weight [in, sum of outs]: transposed, then side by
        side.
        """

        def fill(checkpoint: Checkpoint, targets: Sequence[Array]) -> None:
            for matrix, offset in _offsets(matrices):
                for start, rows in checkpoint.blocks(matrix):
                    targets[0][:, offset + start : offset + start + len(rows)] = rows.T

        out = sum(matrix.out for matrix in matrices)
        spec = TensorSpec(name, np.dtype(dtype), (matrices[0].features, out))
        self.weights.append(Weight((spec,), _sources(matrices), fill))
        return name

    def quantize_matrices(
        self, specs: Sequence[TensorSpec], matrices: Sequence[Matrix], bits: int, block: int
    ) -> None:
        """Add checkpoint matrices [out, in], stacked and quantised in blocks, as weights of one `MatMulNBits`
        node.

        `specs` describes the packed weights, the scales and, optionally, the zero points.
        """

        def fill(checkpoint: Checkpoint, targets: Sequence[Array]) -> None:
            def quantize(matrix: Matrix, offset: int, start: int, stop: int) -> None:
                span = slice(offset + start, offset + stop)
                rows = checkpoint.rows(matrix, start, stop)
                targets[0][span], targets[1][span] = quantize_rows(rows, bits, block)

            in_parallel(
                quantize,
                (
                    (matrix, offset, *span)
                    for matrix, offset in _offsets(matrices)
                    for span in spans(matrix, PART_BYTES)
                ),
            )
            if len(targets) == 3:
                targets[2][...] = zero_point(bits)

        self.weights.append(Weight(tuple(specs), _sources(matrices), fill))

    def channels(self, name: str, matrices: Sequence[Matrix]) -> tuple[str, str]:
        """Add checkpoint matrices side by side as one int8 weight [in, sum of outs], with one scale per
        output channel [sum of outs].

        Returns the names of both.
        """

        def fill(checkpoint: Checkpoint, targets: Sequence[Array]) -> None:
            for matrix, offset in _offsets(matrices):
                for start, rows in checkpoint.blocks(matrix):
                    codes, scales = quantize_channels(rows)
                    span = slice(offset + start, offset + start + len(rows))
                    targets[0][:, span], targets[1][span] = codes.T, scales

        out = sum(matrix.out for matrix in matrices)
        codes = TensorSpec(f"{name}.codes", np.dtype(np.int8), (matrices[0].features, out))
        scales = TensorSpec(f"{name}.scales", np.dtype(np.float32), (out,))
        self.weights.append(Weight((codes, scales), _sources(matrices), fill))
        return codes.name, scales.name

    def graph(self, external: Sequence[TensorProto]) -> GraphProto:
        """Return the finished graph. `external` describes its weights in the data file."""
        initializers = [*self.constants.values(), *external]
        return helper.make_graph(self.nodes, "oneseek", self.inputs, self.outputs, initializers)


def _sources(matrices: Sequence[Matrix]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(matrix.source for matrix in matrices)


def _offsets(matrices: Sequence[Matrix]) -> Iterator[tuple[Matrix, int]]:
    """Pair each matrix with its first output column in the matrices' concatenated output."""
    return zip(matrices, accumulate((matrix.out for matrix in matrices), initial=0), strict=False)

"""A graph without its weights: nodes, inputs, outputs, and the checkpoint tensors of each weight."""

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
"""Number format that a graph computes in."""
NUMPY: dict[Dtype, str] = {"fp32": "float32", "fp16": "float16"}
Attribute = int | float | list[int]
FillTensors = Callable[[Checkpoint, Sequence[Array]], None]
"""Fills the arrays of one `Weight`, in the order of its tensors, from the checkpoint."""

OPSET = 17
"""DirectML supports ScatterND up to opset 16. That of opset 18 would silently run on the CPU."""
IR_VERSION = 10
PART_BYTES = 1 << 20
"""Bytes that a thread quantises at a time, so that intermediate arrays stay in the core's cache."""
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
    """One initializer of the graph, stored in the data file beside it."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Size of the initializer in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Weight:
    """Initializers that are computed together, and the checkpoint tensors that they are computed from."""

    tensors: tuple[TensorSpec, ...]
    sources: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and shape of each checkpoint tensor that is read."""
    fill: FillTensors


@dataclass(slots=True)
class GraphPlan:
    """Collects a graph node by node."""

    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    inputs: list[ValueInfoProto] = field(default_factory=list[ValueInfoProto])
    outputs: list[ValueInfoProto] = field(default_factory=list[ValueInfoProto])
    constants: dict[tuple[str, tuple[int, ...], bytes], TensorProto] = field(
        default_factory=dict[tuple[str, tuple[int, ...], bytes], TensorProto]
    )
    weights: list[Weight] = field(default_factory=list[Weight])
    embedding: str = ""
    """Name of the checkpoint's embedding, in which token ids are looked up."""
    prefix: str = ""
    """Prefix of the weights' names. A checkpoint saved from a model without its head leaves it out."""

    @property
    def size(self) -> int:
        """Size of all weights in bytes."""
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
        """Add a node and return the name of its first output."""
        name = f"{kind}_{len(self.nodes)}"
        outputs = outputs or (f"{name}_out",)
        node = helper.make_node(kind, inputs, outputs, name=name, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return outputs[0]

    def split(self, tensor: str, sizes: Sequence[int]) -> list[str]:
        """Split a tensor along the last axis into parts of these sizes. Return their names."""
        outputs = [f"Split_{len(self.nodes)}_out{i}" for i in range(len(sizes))]
        self.op("Split", [tensor, self.integers(*sizes)], outputs, axis=-1)
        return outputs

    def reshape(self, tensor: str, *shape: int) -> str:
        """Reshape a tensor. 0 keeps a dimension, -1 infers it."""
        return self.op("Reshape", [tensor, self.integers(*shape)])

    def integers(self, *values: int) -> str:
        """Add a constant int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        """Add a constant int64 scalar."""
        return self.constant(np.array(value, dtype=np.int64))

    def constant(self, value: Array) -> str:
        """Add a small constant to the graph's own file. Equal constants are stored once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(value, f"constant_{len(self.constants)}")
        return self.constants[key].name

    def input(self, name: str, dtype: str, shape: Sequence[str | int]) -> str:
        """Declare an input. A string in `shape` names a dimension whose size is set later."""
        self.inputs.append(helper.make_tensor_value_info(name, ONNX_TYPES[dtype], shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[str | int]) -> str:
        """Declare an output; a node must write the tensor `name`."""
        self.outputs.append(helper.make_tensor_value_info(name, ONNX_TYPES[dtype], shape))
        return name

    def table(self, name: str, value: Array) -> str:
        """Add a weight whose value is given here and not read from the checkpoint."""

        def fill(_: Checkpoint, targets: Sequence[Array]) -> None:
            targets[0][...] = value

        self.weights.append(Weight((TensorSpec(name, value.dtype, value.shape),), (), fill))
        return name

    def copy_tensor(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> str:
        """Add a checkpoint tensor unchanged, as `dtype`."""

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
        """Add checkpoint matrices [out, in], transposed and side by side, as one [in, sum of outs]."""

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
        """Add checkpoint matrices [out, in], stacked and quantised blockwise.

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
        """Add checkpoint matrices side by side as int8 [in, sum of outs], with scales [sum of outs]."""

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
        """Return the finished graph, with `external` as the descriptions of its weights."""
        initializers = [*self.constants.values(), *external]
        return helper.make_graph(self.nodes, "oneseek", self.inputs, self.outputs, initializers)


def _sources(matrices: Sequence[Matrix]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(matrix.source for matrix in matrices)


def _offsets(matrices: Sequence[Matrix]) -> Iterator[tuple[Matrix, int]]:
    """Pair each matrix with the index of its first output among the outputs of all matrices in order."""
    return zip(matrices, accumulate((matrix.out for matrix in matrices), initial=0), strict=False)

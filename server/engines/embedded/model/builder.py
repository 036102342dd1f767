"""Writes a planned ONNX graph and its weights to a folder, one weight at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from server.engines.embedded.model.checkpoint import Checkpoint
from server.engines.embedded.model.plan import (
    IR_VERSION,
    MICROSOFT,
    ONNX_TYPES,
    OPSET,
    GraphPlan,
    TensorSpec,
)

GRAPH_FILE, DATA_FILE = "model.onnx", "model.onnx.data"
ALIGNMENT = 1 << 16
"""Bytes to which the start of each tensor in the data file is aligned. Windows requires this to map part of a
file.
"""

BuildProgress = Callable[[int, int], None]
"""Called with (bytes written, bytes in all) after each weight of the graph."""


def write_graph(
    plan: GraphPlan, model_dir: Path, target: Path, progress: BuildProgress | None = None
) -> None:
    """Write `model.onnx` and `model.onnx.data` into the folder `target`, and flush both to the disk.

    Peak memory is one weight, plus the part of the checkpoint that is mapped to read it. Raises
    `CheckpointError`, before anything is written, if the checkpoint lacks a tensor or has it in another
    shape.
    """
    with Checkpoint(model_dir, plan.prefix) as checkpoint:
        for weight in plan.weights:
            for name, shape in weight.sources:
                checkpoint.check(name, shape)
        external = _write_weights(plan, checkpoint, target / DATA_FILE, progress)
    opsets = [helper.make_opsetid("", OPSET)]
    if any(node.domain == MICROSOFT for node in plan.nodes):
        opsets.append(helper.make_opsetid(MICROSOFT, 1))
    model = helper.make_model(plan.graph(external), opset_imports=opsets, ir_version=IR_VERSION)
    with (target / GRAPH_FILE).open("wb") as file:
        file.write(model.SerializeToString())
        file.flush()
        os.fsync(file.fileno())


def _write_weights(
    plan: GraphPlan, checkpoint: Checkpoint, path: Path, progress: BuildProgress | None
) -> list[TensorProto]:
    """Write all weights to the data file.

    Return an ONNX description of each tensor (type, shape, offset), for the graph file.
    """
    places: list[list[tuple[TensorSpec, int]]] = []
    end = written = 0
    for weight in plan.weights:
        places.append([])
        for spec in weight.tensors:
            offset = -(-end // ALIGNMENT) * ALIGNMENT
            places[-1].append((spec, offset))
            end = offset + spec.size
    with path.open("w+b") as file:
        _allocate(file.fileno(), end)
        for weight, tensors in zip(plan.weights, places, strict=True):
            maps = [
                np.memmap(file, dtype=spec.dtype, mode="r+", offset=offset, shape=spec.shape)
                for spec, offset in tensors
            ]
            weight.fill(checkpoint, maps)
            if sys.platform == "win32":  # elsewhere, the `fsync` below covers mapped pages
                for array in maps:
                    array.flush()
            del maps
            checkpoint.close()
            written += sum(spec.size for spec, _ in tensors)
            if progress is not None:
                progress(written, plan.size)
        file.flush()
        os.fsync(file.fileno())
    return [_describe(spec, offset) for tensors in places for spec, offset in tensors]


def _allocate(descriptor: int, size: int) -> None:
    """Allocate `size` bytes on disk before the file is mapped.

    A full disk then raises `OSError` here; later it would crash the process.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _describe(spec: TensorSpec, offset: int) -> TensorProto:
    tensor = TensorProto(name=spec.name, data_type=ONNX_TYPES[spec.dtype.name], dims=spec.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", DATA_FILE), ("offset", str(offset)), ("length", str(spec.size))):
        tensor.external_data.add(key=key, value=value)
    return tensor

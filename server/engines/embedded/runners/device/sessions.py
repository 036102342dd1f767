"""Sessions of fixed shapes on a device, over weights that all of them share.

An execution provider copies the weights that a graph holds into its own memory, once for each session. Here
they are inputs of the graph instead: uploaded once, bound by every session. So a session costs what its
compiled operators do, and a new shape never a second copy of the base.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from server.engines.embedded.model.builder import DATA_FILE
from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.runners.device.providers import PROVIDERS, Provider

MAX_SESSIONS = 48
"""Shapes that are kept ready."""


@dataclass(frozen=True, slots=True)
class SessionShape:
    """What a session is made for."""

    rows: int
    """B."""
    length: int
    """S: tokens of each row."""
    positions: int
    """T: positions of the KV memory."""
    outputs: int
    """M: logits."""
    rank: int
    """Rank columns of each adapted module."""


def rank_columns(config: ModelConfig, rank: int) -> dict[str, int]:
    """Group → its rank columns, where each of its modules has `rank`."""
    return {group: rank * len(modules) for group, modules in config.groups.items()}


def open_session(
    model: bytes, provider: Provider, sizes: Mapping[str, int], *, strict: bool = True
) -> ort.InferenceSession:
    """A session on the provider, its named dimensions given; `strict`, every node of it.

    Raises `RuntimeError` where it runs elsewhere, and what ONNX Runtime raises where a node cannot run there.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # or each session has a pool of its own
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    if strict and provider.ort != PROVIDERS["cpu"].ort:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(model, options, providers=[provider.ort])
    if session.get_providers()[0] != provider.ort:
        raise RuntimeError(
            f"the session runs on {', '.join(session.get_providers())}, not on {provider.ort}; "
            f"is {provider.distribution} installed, and a device there?"
        )
    return session


def detach_weights(graph: BuiltGraph) -> tuple[bytes, dict[str, NDArray[np.generic]]]:
    """The graph with its weights as inputs, and the weights, mapped from the file."""
    model = onnx.load(str(graph.path), load_external_data=False)
    kept: list[onnx.TensorProto] = []
    weights: dict[str, NDArray[np.generic]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            kept.append(tensor)
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        dtype, shape = helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
        weights[tensor.name] = np.memmap(
            graph.folder / DATA_FILE, dtype, "r", offset=int(place["offset"]), shape=shape
        )
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model.SerializeToString(), weights


class Sessions:
    """The sessions of one graph, made when they are first asked for."""

    def __init__(self, model: bytes, graph: BuiltGraph, provider: Provider) -> None:
        self._model, self._provider = model, provider
        self._config = graph.config
        self._open: OrderedDict[SessionShape, ort.InferenceSession] = OrderedDict()

    def get(self, shape: SessionShape) -> ort.InferenceSession:
        """The session for a shape."""
        if shape in self._open:
            self._open.move_to_end(shape)
            return self._open[shape]
        sizes = {"B": shape.rows, "S": shape.length, "T": shape.positions, "M": shape.outputs}
        sizes["GS"] = self._config.heads // self._config.kv_heads * shape.length
        columns = rank_columns(self._config, shape.rank)
        sizes |= {f"R_{group}": count for group, count in columns.items()}
        session = open_session(self._model, self._provider, sizes)
        self._open[shape] = session
        if len(self._open) > MAX_SESSIONS:
            self._open.popitem(last=False)
        return session

    def close(self) -> None:
        """Let go of all of them."""
        self._open.clear()

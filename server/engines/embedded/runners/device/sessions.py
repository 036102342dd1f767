"""Opens ONNX Runtime sessions of fixed shapes on a device; all of them share one copy of the weights.

An execution provider would copy a graph's weights into its own memory for each session. To avoid that, the
weights are turned into inputs of the graph: they are uploaded once, and every session is bound to them. So a
session for a new shape needs memory for its compiled operators only.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from server.engines.embedded.model.builder import DATA_FILE
from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.runners.device.providers import PROVIDERS, Hardware, Provider

MAX_SESSIONS = 48
"""Maximum number of open sessions on a device; each is for one shape."""


@dataclass(frozen=True, slots=True)
class SessionShape:
    """The sizes for which an ONNX session on a device is created."""

    rows: int
    """Number of slots in the batch; dimension B of the graph."""
    length: int
    """Number of tokens in each batch slot; dimension S of the graph."""
    positions: int
    """Number of KV cache positions in each slot; dimension T of the graph."""
    outputs: int
    """Number of positions whose logits are computed; dimension M of the graph."""
    rank: int
    """Number of LoRA rank columns of each linear module."""


def find_devices(name: str, hardware: Hardware) -> list[Any]:
    """Return ONNX Runtime's devices (`OrtEpDevice`) of this kind of hardware, for the provider with this
    `name`.
    """
    return [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == name and device.device.type.name.lower() == hardware
    ]


def own_memory(provider: Provider) -> Any:
    """Return the memory (`OrtMemoryInfo`) of a device whose provider is registered at run time; None if it
    uses host memory.
    """
    if provider.hardware is None:
        return None
    device = find_devices(provider.ort, provider.hardware)[0]
    return device.memory_info(ort.OrtDeviceMemoryType.DEFAULT)


def rank_columns(config: ModelConfig, rank: int) -> dict[str, int]:
    """Return the number of LoRA rank columns of each matrix product, if each of its linear modules has `rank`
    columns.
    """
    return {group: rank * len(modules) for group, modules in config.groups.items()}


def open_session(
    model: bytes, provider: Provider, sizes: Mapping[str, int], *, strict: bool = True
) -> ort.InferenceSession:
    """Open an ONNX session on the provider's device, with `sizes` for the graph's named dimensions.

    With `strict`, every node must run on the device. Raises `RuntimeError` if the session runs elsewhere, and
    ONNX Runtime's error if a node cannot run on the device.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # no thread pool per session
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    if strict and provider.ort != PROVIDERS["cpu"].ort:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = _opened(model, options, provider)
    if session.get_providers()[0] != provider.ort:
        raise RuntimeError(
            f"the ONNX Runtime session runs on {', '.join(session.get_providers())}, not on {provider.ort}; "
            f"check that {provider.distribution} is installed and that the machine has such a device"
        )
    return session


def _opened(model: bytes, options: Any, provider: Provider) -> ort.InferenceSession:
    """Open an ONNX session on a provider built into ONNX Runtime, or on the first device of a provider
    registered at run time.
    """
    if provider.hardware is None:
        return ort.InferenceSession(model, options, providers=[provider.ort])
    devices = find_devices(provider.ort, provider.hardware)
    options.add_provider_for_devices(devices[:1], _provider_options(provider.ort, provider.hardware))
    return ort.InferenceSession(model, options)


def _provider_options(name: str, hardware: Hardware) -> dict[str, str]:
    """Return options that make OpenVINO compute float32 exactly.

    By default it uses bfloat16 if the hardware supports it.
    """
    if name != "OpenVINOExecutionProvider":
        return {}
    return {"load_config": json.dumps({hardware.upper(): {"EXECUTION_MODE_HINT": "ACCURACY"}})}


def detach_weights(graph: BuiltGraph) -> tuple[bytes, dict[str, NDArray[np.generic]]]:
    """Turn a graph's weights into graph inputs.

    Return the new graph, and the weights mapped from their file.
    """
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
    """The ONNX sessions of one graph on a device, each opened when its shape is first used."""

    def __init__(self, model: bytes, graph: BuiltGraph, provider: Provider) -> None:
        self._model, self._provider = model, provider
        self._config = graph.config
        self._open: OrderedDict[SessionShape, ort.InferenceSession] = OrderedDict()

    def get(self, shape: SessionShape) -> ort.InferenceSession:
        """Return the ONNX session for a shape; open it if it is not open."""
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
        """Close all sessions."""
        self._open.clear()

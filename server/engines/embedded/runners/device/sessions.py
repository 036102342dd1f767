"""Opens ONNX Runtime sessions of fixed shapes on a device, which share one copy of the weights.

An execution provider copies the weights of a graph into its own memory for each session. To avoid that, the
weights are inputs of the graph here: they are uploaded once and bound by every session. So a session for a
new shape needs memory for its compiled operators only.
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
"""Maximum number of open sessions, each for one shape."""


@dataclass(frozen=True, slots=True)
class SessionShape:
    """The sizes that a session is created for."""

    rows: int
    """B: rows of the batch."""
    length: int
    """S: number of tokens in each row."""
    positions: int
    """T: number of positions of the KV memory."""
    outputs: int
    """M: number of positions whose logits are computed."""
    rank: int
    """Number of rank columns of each target module."""


def find_devices(name: str, hardware: Hardware) -> list[Any]:
    """Return the `OrtEpDevice`s of this kind of hardware that a registered provider has."""
    return [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == name and device.device.type.name.lower() == hardware
    ]


def own_memory(provider: Provider) -> Any:
    """Return the `OrtMemoryInfo` of a registered provider's device; None if it uses the host's memory."""
    if provider.hardware is None:
        return None
    device = find_devices(provider.ort, provider.hardware)[0]
    return device.memory_info(ort.OrtDeviceMemoryType.DEFAULT)


def rank_columns(config: ModelConfig, rank: int) -> dict[str, int]:
    """Return the rank columns of each group, if each of its modules has `rank` columns."""
    return {group: rank * len(modules) for group, modules in config.groups.items()}


def open_session(
    model: bytes, provider: Provider, sizes: Mapping[str, int], *, strict: bool = True
) -> ort.InferenceSession:
    """Open a session on the provider, with `sizes` for its named dimensions.

    With `strict`, every node must run on the provider. Raises `RuntimeError` if the session runs elsewhere,
    and ONNX Runtime's error if a node cannot run on the provider.
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
            f"the session runs on {', '.join(session.get_providers())}, not on {provider.ort}; "
            f"is {provider.distribution} installed, and a device there?"
        )
    return session


def _opened(model: bytes, options: Any, provider: Provider) -> ort.InferenceSession:
    """Open a session on a provider built into ONNX Runtime, or on the first device of a registered one."""
    if provider.hardware is None:
        return ort.InferenceSession(model, options, providers=[provider.ort])
    devices = find_devices(provider.ort, provider.hardware)
    options.add_provider_for_devices(devices[:1], _provider_options(provider.ort, provider.hardware))
    return ort.InferenceSession(model, options)


def _provider_options(name: str, hardware: Hardware) -> dict[str, str]:
    """Make OpenVINO compute float32 exactly: by default it uses bfloat16 if the hardware supports it."""
    if name != "OpenVINOExecutionProvider":
        return {}
    return {"load_config": json.dumps({hardware.upper(): {"EXECUTION_MODE_HINT": "ACCURACY"}})}


def detach_weights(graph: BuiltGraph) -> tuple[bytes, dict[str, NDArray[np.generic]]]:
    """Turn a graph's weights into inputs. Return the new graph and the weights, mapped from the file."""
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
    """The sessions of one graph, each created at its first use."""

    def __init__(self, model: bytes, graph: BuiltGraph, provider: Provider) -> None:
        self._model, self._provider = model, provider
        self._config = graph.config
        self._open: OrderedDict[SessionShape, ort.InferenceSession] = OrderedDict()

    def get(self, shape: SessionShape) -> ort.InferenceSession:
        """Return the session for a shape, and open it if needed."""
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
        """Release all sessions."""
        self._open.clear()

"""The graph itself on the device: every node there, the CPU's numbers, memory that stays where it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.families.lookup import read_model_config
from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.device import copy_graphs
from server.engines.embedded.runners.device.memory import DeviceMemory
from server.engines.embedded.runners.device.providers import PROVIDERS
from server.engines.embedded.runners.device.sessions import detach_weights, rank_columns
from server.request import AdapterMix
from tests.device.probe import PROVIDER, flavours
from tests.device.thresholds import threshold
from tests.server.engines.embedded.portable import PortableRunner
from tests.server.engines.embedded.randoms import (
    EVERY,
    VOCABULARY,
    Randoms,
    write_random,
    write_random_adapter,
)

GRAPHS: list[tuple[Dtype, Quantize]] = [
    (dtype, quantize) for dtype in ("fp32", "fp16") for quantize in ("none", "int8", "int4")
]
ON_DEVICE: dict[str, Any] = {"provider": PROVIDER, "memory": "webgpu", "only_provider": True}
VOICES: list[AdapterMix] = [(), (("en", 1.0),), (("sv", 1.0),), (("en", 0.5), ("sv", 0.5))]
LIKE = Randoms(ratio=4, window=9)
PROMPT, STEPS = 12, 3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("random") / "base", LIKE)


@pytest.fixture(scope="module")
def loras(base: Path) -> dict[str, AdapterWeights]:
    shape = ModelShape.read(base)
    return {
        name: read_adapter(write_random_adapter(base.parent / name, LIKE, rank, EVERY, rank), shape)
        for name, rank in (("en", 4), ("sv", 8))
    }


def alone(model: bytes, sizes: Mapping[str, int] | None = None) -> ort.InferenceSession:
    """A session that is refused where a node would run on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for name, size in (sizes or {}).items():
        options.add_free_dimension_override_by_name(name, size)
    return ort.InferenceSession(model, options, providers=[PROVIDER])


def logits(
    base: Path, loras: dict[str, AdapterWeights], dtype: Dtype, quantize: Quantize, **options: Any
) -> NDArray[np.float32]:
    """Of each prompt's last token and of some steps after it, four voices in one batch."""
    graph = prepare(base, base.parent / "graphs", "base", quantize, variant=PORTABLE, dtype=dtype)
    runner = PortableRunner(graph, len(VOICES), PROMPT + STEPS, loras, **options)
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, (len(VOICES), PROMPT + STEPS))
    last = [row * PROMPT + PROMPT - 1 for row in range(len(VOICES))]
    found = [runner.run(tokens[:, :PROMPT], [0] * 4, VOICES, last)]
    steps = range(PROMPT, PROMPT + STEPS)
    found += [runner.run(tokens[:, at : at + 1], [at] * 4, VOICES, range(4)) for at in steps]
    runner.close()
    return np.stack(found)


def test_one_flavour_of_onnx_runtime_is_here() -> None:
    assert flavours() == ["onnxruntime-webgpu"]


@pytest.mark.parametrize(("dtype", "quantize"), GRAPHS)
def test_the_device_computes_every_node_as_the_cpu_does(
    base: Path, loras: dict[str, AdapterWeights], dtype: Dtype, quantize: Quantize
) -> None:
    expected = logits(base, loras, dtype, quantize)
    found = logits(base, loras, dtype, quantize, **ON_DEVICE)
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() < threshold(dtype, quantize, expected)


@pytest.mark.parametrize(("dtype", "quantize"), GRAPHS)
def test_the_sessions_that_serve_leave_no_node_to_the_cpu(
    base: Path, dtype: Dtype, quantize: Quantize
) -> None:
    """There the weights are inputs, and a kernel may want to know them beforehand."""
    graph = prepare(base, base.parent / "graphs", "base", quantize, variant=PORTABLE, dtype=dtype)
    model, _ = detach_weights(graph)
    for rows, length in ((4, 1), (1, 16)):
        sizes = {
            "B": rows,
            "S": length,
            "T": 32,
            "GS": LIKE.ratio * length,
            "M": rows,
            **rank_columns(graph.config, 8),
        }
        assert alone(model, sizes).get_providers()[0] == PROVIDER


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_is_moved_on_the_device_itself(dtype: str) -> None:
    shape = (4, 2, 32, 16)
    assert alone(copy_graphs.zeros(dtype, shape))
    assert alone(copy_graphs.put(dtype, 2, shape))
    for positions in (16, 32, 64):
        assert alone(copy_graphs.take(dtype, 2, shape, 3, positions))
    assert alone(copy_graphs.upload(dtype, 2))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_what_is_uploaded_lies_on_the_device(base: Path, dtype: str) -> None:
    """Packed weights too, which this provider cannot copy but from the host."""
    memory = DeviceMemory(PROVIDERS["webgpu"], read_model_config(base), "fp32")
    value = memory.upload(np.arange(6, dtype=dtype).reshape(2, 3))
    lies = value.device_name()
    del value
    memory.close()
    assert lies != "cpu"


def test_memory_written_in_place_holds_what_memory_written_apart_does(
    base: Path, loras: dict[str, AdapterWeights]
) -> None:
    apart, in_place = (
        logits(base, loras, "fp32", "none", **ON_DEVICE, aliased=aliased) for aliased in (False, True)
    )
    np.testing.assert_array_equal(apart, in_place)


def test_a_node_without_a_kernel_on_the_device_would_be_noticed() -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "foreign", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    ort.InferenceSession(model.SerializeToString(), providers=[PROVIDER])
    with pytest.raises(Exception, match="fallback"):
        alone(model.SerializeToString())

"""Whole rows of logits to the host, or the largest found on the device: prints a line for each batch.

$(python -m tests.device.environment) -m tests.device.topk [cpu | webgpu]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from server.engines.embedded.model.plan import IR_VERSION, OPSET
from server.engines.embedded.runners.device.providers import PROVIDERS, DeviceName
from server.engines.embedded.runners.device.sessions import open_session
from server.engines.embedded.sampling.sampler import Sampler
from server.request import Sampling

VOCABULARY, TOP = 32_000, 64
ROUNDS = 20


def graph(rows: int, top: int) -> bytes:
    """Logits as they come out of a product; of its `top` largest where that is not 0."""
    rng = np.random.default_rng(0)
    head = rng.standard_normal((8, VOCABULARY), dtype=np.float32)
    constants = [helper.make_tensor("head", TensorProto.FLOAT, head.shape, head.tobytes(), raw=True)]
    nodes = [helper.make_node("MatMul", ["x", "head"], ["logits"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, VOCABULARY])]
    if top:
        constants.append(helper.make_tensor("top", TensorProto.INT64, [1], [top]))
        nodes.append(helper.make_node("TopK", ["logits", "top"], ["largest", "tokens"], axis=-1))
        outputs = [
            helper.make_tensor_value_info("largest", TensorProto.FLOAT, [rows, top]),
            helper.make_tensor_value_info("tokens", TensorProto.INT64, [rows, top]),
        ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 8])]
    made = helper.make_graph(nodes, "head", inputs, outputs, constants)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString()


def milliseconds(run: Callable[[], object]) -> float:
    """Median of a call."""
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[2:])


def sampled(logits: NDArray[np.float32], sampling: Sampling) -> float:
    """What the host's sampler takes over whole rows."""
    sampler = Sampler(VOCABULARY, frozenset())
    states = [sampler.state(sampling, [1]) for _ in logits]
    return milliseconds(lambda: sampler.sample(logits.copy(), states))


def main() -> None:
    """One line for each batch."""
    provider = PROVIDERS[cast("DeviceName", sys.argv[1] if len(sys.argv) > 1 else "webgpu")]
    for rows in (1, 8, 32):
        x = np.random.default_rng(1).standard_normal((rows, 8), dtype=np.float32)
        whole, largest = (open_session(graph(rows, top), provider, {}) for top in (0, TOP))
        taken = [milliseconds(partial(session.run, None, {"x": x})) for session in (whole, largest)]
        logits = np.asarray(whole.run(None, {"x": x})[0])
        greedy = sampled(logits, Sampling(max_tokens=ROUNDS, temperature=0.0))
        nucleus = sampled(logits, Sampling(max_tokens=ROUNDS, temperature=0.8, top_p=0.9, seed=1))
        print(
            f"{provider.name}, {rows} rows: whole {taken[0]:.2f} ms, largest {TOP} {taken[1]:.2f} ms; "
            f"on the host greedy {greedy:.2f} ms, top_p {nucleus:.2f} ms"
        )


if __name__ == "__main__":
    main()

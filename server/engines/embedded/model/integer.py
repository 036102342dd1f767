"""Matrix products of 8-bit weights and 8-bit activations, which are many times faster on CPUs with VNNI or
AMX.

Weights have one scale for each output channel. Each token's activations are divided by their largest
magnitude and rounded to 1/127ths of it (dynamic per-token quantisation, as in ZeroQuant, Yao et al. 2022). So
a token's result does not depend on the other tokens in the batch.

x86 CPUs without VNNI add pairs of products in 16 bits, which can overflow. `exact_products` tests this. If a
CPU overflows, only the weights are quantised to int8 on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from server.engines.embedded.model.checkpoint import Matrix
    from server.engines.embedded.model.plan import GraphPlan

PROBE_FILE = Path(__file__).with_name("integer_probe.onnx")
"""ONNX file of the model that `probe_model` creates. Having it as a file lets the engine start without the
package `onnx`.
"""
PROBE_SIZE = 64
LEVELS = 127
SMALLEST = 1e-20


class IntegerProducts:
    """Adds 8-bit integer matrix products to a graph plan.

    An activation that several products use is quantised once.
    """

    def __init__(self, plan: GraphPlan) -> None:
        self._plan = plan
        self._coded: dict[str, tuple[str, str]] = {}

    def product(self, name: str, x: str, matrices: Sequence[Matrix]) -> str:
        """Multiply `x` [tokens, features] by the 8-bit `matrices` [out, features].

        The result is float32 [tokens, sum of outs].
        """
        plan = self._plan
        weights, scales = plan.channels(name, matrices)
        codes, magnitudes = self._code(x)
        step, middle = self._step()
        inputs = [codes, weights, step, scales, middle]
        product = plan.op("MatMulIntegerToFloat", inputs, domain="com.microsoft")
        return plan.op("Mul", [product, magnitudes])

    def _code(self, x: str) -> tuple[str, str]:
        """Quantise `x`.

        Return its uint8 values (zero is 128) and each token's largest magnitude [tokens, 1].
        """
        if x not in self._coded:
            plan = self._plan
            greatest = plan.op("ReduceMax", [plan.op("Abs", [x])], axes=[-1], keepdims=1)
            magnitudes = plan.op("Max", [greatest, plan.constant(np.array(SMALLEST, np.float32))])
            codes = plan.op("QuantizeLinear", [plan.op("Div", [x, magnitudes]), *self._step()])
            self._coded[x] = codes, magnitudes
        return self._coded[x]

    def _step(self) -> tuple[str, str]:
        step = self._plan.constant(np.array(1 / LEVELS, np.float32))
        return step, self._plan.constant(np.array(LEVELS + 1, np.uint8))


@cache
def exact_products() -> bool:
    """Return True if this CPU adds 8-bit products of the largest values without overflow."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(PROBE_FILE, options, providers=["CPUExecutionProvider"])
    codes = np.full((PROBE_SIZE, PROBE_SIZE), 255, np.uint8)
    (result,) = session.run(None, {"codes": codes})
    return bool((np.asarray(result) == PROBE_SIZE * LEVELS * 127.0).all())


def probe_model() -> bytes:
    """Serialise the ONNX model for `exact_products`: it multiplies the largest 8-bit activations by the
    largest weights.
    """
    from onnx import TensorProto, helper, numpy_helper

    inputs = ["codes", "weights", "one", "one", "middle"]
    node = helper.make_node("MatMulIntegerToFloat", inputs, ["result"], domain="com.microsoft")
    shape = [PROBE_SIZE, PROBE_SIZE]
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("codes", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.full(shape, 127, np.int8), "weights"),
            numpy_helper.from_array(np.array(1, np.float32), "one"),
            numpy_helper.from_array(np.array(LEVELS + 1, np.uint8), "middle"),
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from server.engines.embedded.model.quantize import (
    BLOCK,
    WIDE_BLOCK,
    dequantize_rows,
    packed_shape,
    quantize_rows,
    zero_point,
    zero_points_shape,
)

MATRICES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 3 * BLOCK + 1)),
    elements=st.floats(-1e4, 1e4, width=32),
)


@pytest.mark.parametrize("bits", [8, 4])
@given(rows=MATRICES)
@settings(max_examples=60)
def test_no_weight_moves_by_more_than_a_step_of_its_block(bits: int, rows: NDArray[np.float32]) -> None:
    packed, scales = quantize_rows(rows, bits)
    assert packed.shape == packed_shape(rows.shape[0], rows.shape[1], bits)
    assert packed.dtype == np.uint8
    assert scales.dtype == np.float32
    restored = dequantize_rows(packed, scales, rows.shape[1], bits)
    step = np.repeat(np.abs(scales), BLOCK, axis=1)[:, : rows.shape[1]]
    # Four bits reach from -8 to 7 steps, so that the far end of the shorter side may lose a whole one.
    most = step * (0.501 if bits == 8 else 1.001)
    assert (np.abs(restored - rows) <= most + 1e-30).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_zeros_stay_zeros(bits: int) -> None:
    packed, scales = quantize_rows(np.zeros((2, 40), np.float32), bits)
    assert not dequantize_rows(packed, scales, 40, bits).any()


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("features", "block"), [(64, BLOCK), (72, BLOCK), (256, WIDE_BLOCK), (200, WIDE_BLOCK)]
)
def test_the_layout_is_the_operators(bits: int, features: int, block: int, explicit: bool) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, features), dtype=np.float32)
    x = rng.standard_normal((3, features), dtype=np.float32)
    packed, scales = quantize_rows(weight, bits, block)
    tensors = {"packed": packed, "scales": scales}
    if explicit:
        tensors["zeros"] = np.full(zero_points_shape(6, features, bits, block), zero_point(bits), np.uint8)
    inputs, sizes = ["x", *tensors], {"K": features, "N": 6, "bits": bits, "block_size": block}
    node = helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft")
    node.attribute.extend(helper.make_attribute(name, size) for name, size in sizes.items())
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, width])
        for name, width in (("x", features), ("y", 6))
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_graph([node], "one", values[:1], values[1:], initializers)
    model = helper.make_model(proto, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = np.asarray(session.run(None, {"x": x})[0])
    np.testing.assert_allclose(found, x @ dequantize_rows(packed, scales, features, bits).T, atol=1e-4)

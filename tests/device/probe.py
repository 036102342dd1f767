"""Whether ONNX Runtime's WebGPU provider computes here; exits with what is wrong where it does not."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

PROVIDER = "WebGpuExecutionProvider"


def flavours() -> list[str]:
    """Distributions of ONNX Runtime in this environment."""
    names = {found.metadata["Name"].lower() for found in importlib.metadata.distributions()}
    return sorted(name for name in names if name.startswith("onnxruntime"))


def main() -> None:
    """Add two numbers on the device, with nothing left to the CPU."""
    if len(flavours()) != 1:
        raise SystemExit(f"one flavour of ONNX Runtime belongs here; there are {', '.join(flavours())}")
    if PROVIDER not in ort.get_available_providers():
        raise SystemExit(f"{flavours()[0]} has no {PROVIDER}, only {ort.get_available_providers()}")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "probe", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])
    (found,) = session.run(None, {"x": np.array([1, 2], np.float32)})
    if session.get_providers()[0] != PROVIDER or np.asarray(found).tolist() != [2, 4]:
        raise SystemExit(f"{session.get_providers()} made {found} of 1 + 1 and 2 + 2")
    print(f"{flavours()[0]} {ort.__version__} computes on {session.get_providers()[0]}")


if __name__ == "__main__":
    main()

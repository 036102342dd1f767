"""The wheel that Windows gets, as pip resolves it: DirectML, and a kernel for each operator of the graph.

It cannot run here; what can be said of it without Windows is said.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from server.engines.embedded.model.decoder import plan_graph
from server.engines.embedded.model.plan import MICROSOFT, Dtype
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.device.providers import PROVIDERS
from tests.environments import distribution
from tests.server.engines.embedded.model.test_decoder_static import CONFIG

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
PYTHONS = ("3.11", "3.12", "3.13")
KERNELS = {
    "ElementwiseBinary": ("Add", "Div", "Mul"),
    "ElementwiseUnary": ("Sqrt",),
    "Activation": ("Sigmoid", "Softmax"),
    "Cast": ("Cast",),
    "Concat": ("Concat",),
    "Copy": ("Reshape", "Unsqueeze"),
    "Gather": ("Gather",),
    "Gemm": ("Gemm",),
    "MatMul": ("MatMul",),
    "MatMulNBits": ("MatMulNBits",),
    "Reduce": ("ReduceMean",),
    "ScatterNd": ("ScatterND",),
    "Split": ("Split",),
    "Transpose": ("Transpose",),
}
"""Class of a kernel for DirectML, after `DmlOperator` → the operators of the graph that it computes."""


def pin() -> str:
    """What pyproject.toml asks for on Windows."""
    asked: list[str] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    (found,) = (line for line in asked if distribution(line) == PROVIDERS["directml"].distribution)
    return found.split(";")[0].strip()


def downloaded(python: str) -> Path:
    """The wheel for a Python on Windows, kept beside this environment from run to run."""
    folder = Path(sys.prefix).parent / "wheels" / pin() / python
    if not list(folder.glob("*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        command += ["--platform", "win_amd64", "--python-version", python, "--only-binary", ":all:", pin()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def runtime() -> bytes:
    """The library that holds the kernels."""
    with zipfile.ZipFile(downloaded(PYTHONS[0])) as wheel:
        return wheel.read("onnxruntime/capi/onnxruntime.dll")


@pytest.mark.parametrize("python", PYTHONS)
def test_pip_finds_the_wheel_for_windows_and_directml_is_in_it(python: str) -> None:
    wheel = downloaded(python)
    assert wheel.name.endswith(f"-cp{python.replace('.', '')}-cp{python.replace('.', '')}-win_amd64.whl")
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        assert archive.read("onnxruntime/capi/DirectML.dll")[:2] == b"MZ"
    assert sizes["onnxruntime/capi/DirectML.dll"] > 10 << 20
    assert sizes["onnxruntime/capi/onnxruntime.dll"] > 10 << 20


def test_the_provider_goes_by_the_name_that_is_asked_for(runtime: bytes) -> None:
    assert is_named(runtime, PROVIDERS["directml"].ort)
    assert not is_named(runtime, "NoSuchExecutionProvider")


def test_every_operator_of_the_graph_has_its_kernel(runtime: bytes) -> None:
    built: list[tuple[Dtype, Quantize]] = [("fp32", "none"), ("fp16", "none"), ("fp16", "int4")]
    nodes = [
        node for dtype, quantize in built for node in plan_graph(CONFIG, PORTABLE, dtype, quantize).nodes
    ]
    used = {node.op_type for node in nodes} | {"Gemm"}
    assert {node.op_type for node in nodes if node.domain == MICROSOFT} == {"MatMulNBits"}
    computed = {operator: kernel for kernel, operators in KERNELS.items() for operator in operators}
    assert used == set(computed)
    for operator in used:
        assert is_named(runtime, operator), operator
        assert re.search(rb"DmlOperator%s[@A-Z$]" % computed[operator].encode(), runtime), computed[operator]
    assert not re.search(rb"DmlOperatorNoSuchThing[@A-Z$]", runtime)


def is_named(library: bytes, name: str) -> bool:
    """Whether a string of exactly this name is in it."""
    return b"\0" + name.encode() + b"\0" in library

"""The wheels that Windows gets, as pip resolves them.

The flavour holds DirectML, with a kernel for each operator of the graph. The catalogue has the names in use.
They cannot run here; what can be said of them without Windows is said.
"""

from __future__ import annotations

import ast
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
from server.engines.embedded.runners.windowsml.catalogue import PACKAGE, PINNED
from tests.environments import distribution
from tests.server.engines.embedded.model.test_decoder_static import CONFIG

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
PYTHONS = ("3.11", "3.12", "3.13")
STAND_IN = PYPROJECT.with_name("tests") / "server/engines/embedded/runners/windowsml/recorded/windowsml.py"
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


def downloaded(python: str, wanted: str = "") -> Path:
    """A wheel for Windows, by default the flavour's, kept beside this environment from run to run."""
    wanted = wanted or pin()
    folder = Path(sys.prefix).parent / "wheels" / wanted / python
    if not list(folder.glob("*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        command += ["--platform", "win_amd64", "--python-version", python, "--only-binary", ":all:", wanted]
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


def test_what_stands_in_for_the_catalogue_has_its_names() -> None:
    """Classes, members and signatures of the stand-in are those of the package that Windows gets."""
    with zipfile.ZipFile(downloaded(PYTHONS[0], f"{PACKAGE}=={PINNED}")) as wheel:
        real: dict[str, dict[str, str]] = {}
        for name in wheel.namelist():
            if re.search(r"windowsml/(__init__|_bindings)\.py$", name):
                real |= members(wheel.read(name).decode("utf-8"))
    recorded = members(STAND_IN.read_text(encoding="utf-8"))
    assert list(recorded) == ["EpReadyState", "EpCertification", "ExecutionProvider", "EpCatalog"]
    for kind, own in recorded.items():
        assert own == {name: real[kind].get(name) for name in own}, kind
    assert real["EpReadyState"].keys() == recorded["EpReadyState"].keys()


def members(source: str) -> dict[str, dict[str, str]]:
    """Class → its public members, with the value of each constant and the parameters of each method."""
    found: dict[str, dict[str, str]] = {}
    for kind in ast.parse(source).body:
        if isinstance(kind, ast.ClassDef):
            found[kind.name] = shown = {}
            for member in kind.body:
                if isinstance(member, ast.Assign):
                    shown[ast.unparse(member.targets[0])] = ast.unparse(member.value)
                elif isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
                    decorators = [ast.unparse(one) for one in member.decorator_list]
                    shown[member.name] = f"{decorators} {ast.unparse(member.args)}"
    return found

"""A server on the very provider that Windows ML installs for Intel's hardware, here on the CPU.

Only the catalogue is a stand-in. The library is OpenVINO's plug-in for ONNX Runtime, from PyPI.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from pathlib import Path

import httpx
import onnxruntime as ort
import pytest

from tests.server.engines.embedded.runners.windowsml import judged
from tests.server.engines.embedded.runners.windowsml.machine import RECORDED, recorded_provider
from tests.server.server_process import ServerProcess

PLUGIN, OPENVINO = "onnxruntime_ep_openvino", "OpenVINOExecutionProvider"
PROMPT = {"prompt": "Who are you?", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
INTEL = 0x8086
"""PCI vendor id. The plug-in offers no device on processors of other makers."""

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64", reason="the plug-in has no wheel for it"
    ),
    pytest.mark.skipif(
        INTEL not in {one.device.vendor_id for one in ort.get_ep_devices()},
        reason="the plug-in offers a device on Intel's processors only",
    ),
]


@pytest.fixture
def library() -> Path:
    spec = importlib.util.find_spec(PLUGIN)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("libonnxruntime_providers_openvino_plugin.so")


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("memory", ["machine", "own"])
def test_the_self_test_holds_in_either_memory(
    dtype: str, memory: str, library: Path, tiny_base: Path, tmp_path: Path
) -> None:
    """In a process of its own, which may be given a provider that others are not to see."""
    command = [sys.executable, "-m", judged.__name__, str(library), str(tiny_base), str(tmp_path)]
    done = subprocess.run([*command, dtype, memory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["info"]["provider"] == OPENVINO
    assert told["info"]["precision"] == dtype
    assert (told["memory"] is None) is (memory == "machine")


@pytest.mark.slow
def test_a_server_answers_on_it_as_on_the_cpu(
    library: Path,
    tiny_base: Path,
    tiny_adapters: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = tmp_path / "machine.json"
    absent = recorded_provider("QNNExecutionProvider", "NotPresent")
    machine.write_text(json.dumps([recorded_provider(OPENVINO, library=str(library)), absent]))
    monkeypatch.setenv("PYTHONPATH", str(RECORDED))
    monkeypatch.setenv("WINDOWSML_MACHINE", str(machine))
    adapters = ",".join(f"{name}={folder}" for name, folder in tiny_adapters.items())
    answers: list[list[str]] = []
    for device in ("windowsml", "cpu"):
        folder = tmp_path / device
        folder.mkdir()
        server = ServerProcess(
            tiny_base, folder, "--device", device, "--dtype", "fp32", "--adapters", adapters
        )
        try:
            with httpx.Client(base_url=server.url(), timeout=60) as client:
                told = client.get("/health").json()["device"]
                assert told["name"] == device
                assert told["provider"] == (OPENVINO if device == "windowsml" else "CPUExecutionProvider")
                texts = [
                    client.post("/v1/completions", json={"model": name} | PROMPT).json()["choices"][0]["text"]
                    for name in ("base", *tiny_adapters)
                ]
            answers.append(texts)
        finally:
            server.end()
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == len(answers[0])
    assert not any(one.get("downloads") for one in json.loads(machine.read_text()))
